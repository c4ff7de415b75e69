from pathlib import Path

import numpy as np
import pytest

from fl_sim.core.errors import ConfigError
from fl_sim.core.places import cache_dir
from fl_sim.data.cache import Arrays, cache_path, stored


def make() -> Arrays:
    return {"a": np.arange(3)}


def refuse() -> Arrays:
    raise AssertionError("made although it was kept")


def test_is_made_once_and_then_read(cache: Path) -> None:
    assert stored("some/thing", make)["a"].tolist() == [0, 1, 2]
    assert stored("some/thing", refuse)["a"].tolist() == [0, 1, 2]
    assert [path.relative_to(cache) for path in cache.rglob("*") if path.is_file()] == [Path("some/thing.npz")]


def test_nothing_is_left_when_making_fails(cache: Path) -> None:
    with pytest.raises(AssertionError):
        stored("thing", refuse)
    assert not list(cache.glob("*"))


def test_a_damaged_file_is_named() -> None:
    stored("thing", make)
    cache_path("thing").write_bytes(b"PK half a file")
    with pytest.raises(ConfigError, match=r"thing\.npz.*delete it"):
        stored("thing", make)


def test_pickles_are_refused(tmp_path: Path) -> None:
    stored("thing", make)
    with cache_path("thing").open("wb") as file:
        np.savez(file, a=np.array([tmp_path], dtype=object))
    with pytest.raises(ConfigError, match="allow_pickle"):
        stored("thing", make)


def test_a_cache_that_cannot_be_written_says_what_to_set(cache: Path) -> None:
    cache.write_text("a file, where a folder should be")
    with pytest.raises(ConfigError, match="FL_SIM_CACHE"):
        stored("thing", make)


def test_place_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FL_SIM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_dir() == Path("/x/fl-sim")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "fl-sim"
