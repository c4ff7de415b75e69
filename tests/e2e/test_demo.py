"""The demo as a user runs it: Flower's simulation, attacks on Ray actors, the report."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.alone]


def listeners() -> set[str]:
    """Addresses, in the kernel's hexadecimal, on which anything listens beyond loopback."""
    lines = [
        line.split()
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        if Path(table).exists()
        for line in Path(table).read_text().splitlines()[1:]
    ]
    listening = {fields[1] for fields in lines if fields[3] == "0A"}
    local = ("0100007F:", "00000000000000000000000001000000:", "0000000000000000FFFF00000100007F:")
    return {address for address in listening if not address.startswith(local)}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux to see who listens")
def test_the_demo_ends_well_and_listens_to_nobody_else(tmp_path: Path) -> None:
    before, seen, began = listeners(), set[str](), time.monotonic()
    command = [sys.executable, "-m", "experiments.cli", "demo", "--out", str(tmp_path / "run"), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ)
    while process.poll() is None and time.monotonic() < began + 300:
        seen |= listeners()
        time.sleep(0.5)
    said, progress = process.communicate(timeout=10)
    assert process.returncode == 0, progress.decode()
    assert seen <= before
    summary = json.loads(said)
    records = [json.loads(line) for line in (tmp_path / "run" / "records.jsonl").read_text().splitlines()]
    assert len(records) == summary["jobs"] == 3 * 3 * 4 * 2
    by_row = {(row["defense"], row["attack"]): row["psnr"]["median"] for row in summary["rows"]}
    assert by_row["none", "ratio"] > 90
    assert by_row["none", "inverting_gradients"] > 35
    assert by_row["gaussian(std=0.1)", "ratio"] < 20
    assert by_row["none", "inverting_gradients"] > by_row["topk(keep=0.1)", "inverting_gradients"] > 12
    assert (tmp_path / "run" / "report.html").stat().st_size > 20_000
    assert b"attack" in progress
