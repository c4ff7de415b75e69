"""A cache of its own for every test, and the real data where there is some."""

import os
from pathlib import Path

import pytest

from fl_sim.data import clients, datasets


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache on disk, and none in memory."""
    monkeypatch.setenv("FL_SIM_CACHE", str(tmp_path / "cache"))
    datasets._load.cache_clear()
    clients._shares.cache_clear()
    return tmp_path / "cache"


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets; see its README."""
    folder = os.environ.get("FL_SIM_DATA")
    if not folder:
        pytest.skip("FL_SIM_DATA is not set: no real MNIST and CIFAR-10")
    return Path(folder)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection fails, as on a machine without a network."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
