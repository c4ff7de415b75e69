"""Kill the process at any moment and run again: nothing is redone, nothing torn is read, the records are the same."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.experiments.runs import records, run_tiny
from tests.experiments.studies import TINY

pytestmark = [pytest.mark.slow, pytest.mark.alone]

SLOWER = TINY.replace("steps = 30", "steps = 250").replace("rounds = 2", "rounds = 3")
HEARS_CTRL_C = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell starts in the background
from experiments.cli import main
sys.exit(main())
"""
UNCOMPILED = '[runtime]\ncompile = "never"\n'
MOMENTS: dict[str, Callable[[Path], bool]] = {
    "first observation": lambda run: any(run.glob("cells/*/observations/*.safetensors")),
    "first checkpoint": lambda run: any(run.glob("cells/*/checkpoint.safetensors")),
    "fifth reconstruction": lambda run: len(list(run.glob("cells/*/reconstructions/*/*.safetensors"))) >= 5,
    "second cell": lambda run: len(list(run.glob("cells/*"))) > 1,
    "records": lambda run: (run / "records.jsonl").exists(),
}


def start(folder: Path, executor: str = "inline") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", HEARS_CTRL_C, "run", str(folder.parent / "tiny.toml")]
    command += ["--out", str(folder), "--executor", executor]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ)


def kill_at(folder: Path, moment: Callable[[Path], bool]) -> bool:
    """Whether the process still ran when it was killed."""
    process = start(folder)
    ends = time.monotonic() + 120
    while process.poll() is None and not moment(folder) and time.monotonic() < ends:
        time.sleep(0.01)
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return alive


def test_a_run_killed_again_and_again_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(SLOWER)
    killed = [name for name, moment in MOMENTS.items() if kill_at(tmp_path / "killed", moment)]
    assert len(killed) >= 4  # the last moment may be over before it is seen
    process = start(tmp_path / "killed")
    assert process.wait(timeout=300) == 0, process.communicate()[1].decode()
    process.communicate()
    (tmp_path / "calm").mkdir()
    run_tiny(tmp_path / "calm" / "run", SLOWER)
    assert records(tmp_path / "killed") == records(tmp_path / "calm" / "run")


@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_ctrl_c_ends_with_130_and_says_how_to_go_on(tmp_path: Path, executor: str) -> None:
    """Also while Flower's server thread waits for clients."""
    endless = SLOWER.replace("steps = 250", "steps = 20000").replace("[evaluation]", UNCOMPILED + "[evaluation]")
    (tmp_path / "tiny.toml").write_text(endless)
    process = start(tmp_path / "run", executor)
    while process.poll() is None and not MOMENTS["first observation"](tmp_path / "run"):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"goes on from here" in said
