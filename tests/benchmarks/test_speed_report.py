"""The arithmetic of the tables of speed."""

from pathlib import Path
from typing import Any

from benchmarks.federated import _in_turns
from benchmarks.speed_report import write

MADE = {"commit": "abc", "machine": "2-core CPU, 1 thread", "torch": "2"}


def page(tmp_path: Path, *records: dict[str, Any]) -> str:
    write([{**record, "environment": MADE} for record in records], tmp_path / "speed.json")
    return (tmp_path / "speed.md").read_text()


def search(name: str, seconds: list[float | None], whole: float, together: int) -> dict[str, Any]:
    found = [{"psnr": 20.0 + i, "seconds": s, "whole": whole, "steps": 1} for i, s in enumerate(seconds)]
    return {"part": "quality", "name": name, "together": together, "found": found}


def test_cost_is_a_share_of_the_wait_and_what_is_not_found_counts_as_longer(tmp_path: Path) -> None:
    said = page(
        tmp_path,
        search("ours", [2.0, 4.0, 8.0], 10.0, 4),
        search("breaching", [3.0, None, None], 20.0, 1),
        search("cut short", [None, None, None], 4.0, 2),
    )
    assert "| ours | 3 of 3 | 6 (1) | > 20 | 1 | 4 | 21.0 |" in said
    assert "| breaching | 1 of 3 | 1 (1) | | > 20 | > 20 | 21.0 |" in said
    assert "| cut short | 0 of 3 | none | | > 2 | > 4 | 21.0 |" in said


def test_attacks_beside_training_are_over_the_longer_leg_of_the_same_turn(tmp_path: Path) -> None:
    apart = [{"simulate": 10.0, "attack": 4.0}, {"simulate": 10.0, "attack": 20.0}]
    said = page(tmp_path, {"part": "federation", "name": "overlap", "apart": apart, "together": [11.0, 18.0]})
    assert "(alone 10 and 12 s) | 1 [0.9, 1.1] | 14.5 [11, 18] over 15 [10, 20] |" in said


def test_ratios_are_over_one_breaching_and_over_two(tmp_path: Path) -> None:
    one, two = [3000.0, 1000.0, 6000.0], [2000.0, 1000.0, 3000.0]
    ms = {"breaching, 1 process": one, "breaching, 2 processes": two, "fl-sim": [1000.0, 500.0, 1500.0]}
    record = {"name": "cnn", "ms": ms, "mib": dict.fromkeys(ms, 7)}
    assert "| fl-sim | 3 [2, 4] | 2 [2, 2] | 1e+03 [500, 1.5e+03] | 7 |" in page(
        tmp_path, {"part": "networks", **record}
    )
    assert "| fl-sim | 3 [2, 4] | 2 [2, 2] | 3,600 [2,400, 7,200] | 7 |" in page(tmp_path, {"part": "jobs", **record})


def test_watched_rounds_are_compared_pair_by_pair_with_an_interval(tmp_path: Path) -> None:
    said = page(
        tmp_path, {"part": "federation", "name": "watching", "plain": [1.0, 2.0, 4.0], "watched": [1.1, 2.0, 4.4]}
    )
    assert "3 pairs, mean 1.067 [0.923, 1.210] (95 %) | 1.1 [1, 1.1] | 2 [1.1, 4.4] over 2 [1, 4] |" in said


def test_chains_at_once_are_over_one_alone(tmp_path: Path) -> None:
    ms = {"one": [4.0, 8.0, 6.0], "4 targets": [2.0, 2.0, 6.0]}
    said = page(tmp_path, {"part": "generators", "name": "gifd", "ms": ms})
    assert "| `gifd` | 4 targets | 2 [1, 4] | 2 [2, 6] |" in said


def test_busy_is_the_share_of_what_is_executed(tmp_path: Path) -> None:
    rates = {"ms": 10.0, "matmul": 100.0, "convolution": 90.0}
    record = {"model": "net", "targets": 2, "gflop": 1.0, "executed": 0.5, "share": 0.9, "busy": 0.45, **rates}
    said = page(tmp_path, {"part": "limit", "name": "net, 2 together", **record})
    assert "| `net` | 2 | 90% | 45% | 1.0 | 0.5 | 10.0 | 100.0 | 90.0 |" in said


def test_the_same_pictures_are_told_by_their_differences(tmp_path: Path) -> None:
    def found(*values: float) -> list[dict[str, float]]:
        return [{"psnr": value} for value in values]

    said = page(
        tmp_path,
        {"part": "deep", "name": "trial by trial", "found": found(10.0, 20.0, 12.0)},
        {"part": "deep", "name": "together", "found": found(10.5, 19.0, 12.0)},
    )
    assert "| together | 12.00 | 0 [-1, 0.5] | 10.5, 19.0, 12.0 |" in said


def test_ways_take_turns_and_the_first_turn_warms_up() -> None:
    order = list[str]()

    def way(name: str) -> int:
        order.append(name)
        return len(order)

    found = _in_turns({"a": lambda: way("a"), "b": lambda: way("b")}, 2)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": [4, 5], "b": [3, 6]}
