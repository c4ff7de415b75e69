"""What machines have room for."""

from pathlib import Path
from typing import Any

import pytest

from fl_sim.runtime.machines import processors, room, turns


def test_machines_take_turns_by_their_size() -> None:
    def machine(name: str, cpus: float, *, alive: bool = True) -> dict[str, Any]:
        return {"NodeID": name, "Alive": alive, "Resources": {"CPU": cpus} if cpus else {}}

    assert turns([machine("a", 1), machine("b", 1)], "CPU") == ["a", "b"]
    assert turns([machine("a", 4), machine("b", 2)], "CPU") == ["a", "a", "b", "a", "a", "b"]
    assert turns([machine("a", 1, alive=False), machine("b", 0), machine("c", 2)], "CPU") == ["c", "c"]
    assert turns([machine("a", 4)], "GPU") == []


@pytest.mark.parametrize(("gpus", "expected"), [(0.0, 6), (0.25, 16), (0.4, 8), (1.0, 4), (2.0, 1), (3.0, 1), (4.0, 1)])
def test_there_are_as_many_actors_as_the_machines_have_room_for(
    monkeypatch: pytest.MonkeyPatch, gpus: float, expected: int
) -> None:
    """Shares of less than one are of one GPU; several GPUs are of one machine."""
    machines = [
        {"NodeID": "a", "Alive": True, "Resources": {"CPU": 4.0, "GPU": 3.0}},
        {"NodeID": "b", "Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0}},
        {"NodeID": "c", "Alive": False, "Resources": {"CPU": 8.0, "GPU": 8.0}},
    ]
    monkeypatch.setattr("ray.nodes", lambda: machines)
    assert room(gpus) == expected


@pytest.mark.parametrize(
    ("cores", "gib", "limit", "expected"),
    [(2, 24, "max", 2), (16, 24, "max", 6), (1, 2, "max", 1), (16, 64, str(8 << 30), 2), (4, 64, None, 4)],
)
def test_processors_are_those_that_memory_is_enough_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cores: int, gib: int, limit: str | None, expected: int
) -> None:
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit + "\n")
    monkeypatch.setattr("fl_sim.runtime.machines._LIMIT", tmp_path / "memory.max")
    monkeypatch.setattr("joblib.cpu_count", lambda: cores)
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": 1 << 10, "SC_PHYS_PAGES": gib << 20}[name])
    assert processors() == expected
