from pathlib import Path

import pytest

from benchmarks import report, results
from benchmarks.results import Record


def record(tool: str, image: int, psnr: float, part: str = "convnet", **options: object) -> Record:
    return {
        "job": {"part": part, "tool": tool, "image": image, "options": {"steps": 10, **options}},
        "psnr": psnr,
        "label_found": image != 1,
        "iterations": 10,
        "cpu_seconds": 2.0,
        "curve": {"iterations": [0, 10], "seconds": [0.1, 2.0], "psnr": [5.0, psnr + 1]},
        "environment": {"torch": "2"},
    }


@pytest.fixture
def records() -> list[Record]:
    theirs = [record("breaching", image, 10.0 + image) for image in range(3)]
    ours = [record("fl-sim", image, 14.0 + image) for image in range(2)]
    return [*theirs, *ours, record("fl-sim", 9, 20.0, "tuning", tv=0.1)]


def test_a_page_sums_up_and_compares_only_what_both_did(tmp_path: Path, records: list[Record]) -> None:
    out = tmp_path / "some.json"
    report.write(records, out)
    page = out.with_suffix(".md").read_text()
    assert "| breaching | 3 | 11.0 | 11.0 (8.5 to 13.5) | 10.0, 12.0 | 12.0 | 2 | 200.0 |" in page
    assert "| 1 | 11.0 | 15.0 |" in page
    assert "\n| 2 | 12.0 |  |" in page
    assert "| mean gain (95 % interval) | | 4.0 (4.0 to 4.0) |" in page
    assert "| fl-sim, tv 0.1 | 20.0 | 20.0 |" in page
    assert 0 < out.with_suffix(".png").stat().st_size < 200_000


def test_one_tool_alone_makes_no_pairs(tmp_path: Path, records: list[Record]) -> None:
    out = tmp_path / "some.json"
    report.write(records[:3], out)
    assert "mean gain" not in out.with_suffix(".md").read_text()


def test_records_are_read_as_they_were_written_and_stay_short(tmp_path: Path, records: list[Record]) -> None:
    out = tmp_path / "some.json"
    assert results.read(out) == []
    results.write(out, records)
    assert results.read(out) == records
    assert '"psnr": [ 5.0, 11.0 ]' in out.read_text()
