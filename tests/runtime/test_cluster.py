"""Attacks on a Ray cluster of two nodes, both on this machine."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fl_sim.runtime.pool import Failure, RayPool, RaySession
from tests.experiments.command import fl_sim
from tests.experiments.studies import TINY

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Its address; each node has one CPU."""
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)  # for the nodes' workers
    nodes: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    yield nodes.address
    nodes.shutdown()
    os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


def where(job: tuple[Path, int]) -> str:
    """The node that it is on, once both jobs have begun: each has an actor of its own."""
    import ray

    meeting, number = job
    (meeting / str(number)).touch()
    ends = time.monotonic() + 120
    while len(list(meeting.iterdir())) < 2 and time.monotonic() < ends:
        time.sleep(0.1)
    return str(ray.get_runtime_context().get_node_id())


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.filterwarnings("ignore")
def test_actors_are_on_all_nodes(cluster: str, tmp_path: Path) -> None:
    found: dict[tuple[Path, int], str | Failure] = {}
    with RaySession(cpus=1, address=cluster):
        pool = RayPool(where, found.__setitem__, actors=2)
        for number in range(2):
            pool.submit((tmp_path, number))
        pool.drain()
    assert not any(isinstance(result, Failure) for result in found.values()), found
    assert len(set(found.values())) == 2


@pytest.mark.parametrize(("address", "joined"), [(None, "local"), ("10.0.0.1:6379", "10.0.0.1:6379")])
def test_a_cluster_is_used_only_where_it_is_named(
    monkeypatch: pytest.MonkeyPatch, address: str | None, joined: str
) -> None:
    """Ray by itself would join one that it finds on this machine."""
    told = list[str]()
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", lambda address, **_: told.append(address))
    monkeypatch.setattr("ray.shutdown", lambda: None)
    with RaySession(cpus=1, address=address):
        assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == ("0" if address is None else "1")
    assert told == [joined]


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.filterwarnings("ignore")
def test_a_run_is_attacked_on_a_cluster(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    run = str(tmp_path / "run")
    assert fl_sim(monkeypatch, "run", str(tmp_path / "tiny.toml"), "--out", run, "--executor", "inline") == 0
    assert fl_sim(monkeypatch, "attack", run, "--attack", "dlg:steps=5", "--ray-address", cluster) == 0
    assert len(list(Path(run).glob("cells/*/reconstructions/dlg/*.safetensors"))) == 2 * 2 * 2
    assert cluster not in (Path(run) / "run.json").read_text()


def test_ray_reads_the_launchers_file() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / "experiments" / "deploy" / "ray.yaml").read_text())
    validate_config(prepare_config(config))
