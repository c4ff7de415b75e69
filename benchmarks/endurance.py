"""A long run of many clients: its memory, and a crash in its middle. ``python -m benchmarks.endurance FOLDER``"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.results import PATH, environment
from fl_sim.runtime import files

STUDY = "hundred_clients"
KILL_AT = 20  # rounds of which observations lie on disk
EVERY = 2.0  # seconds between looks

Sample: TypeAlias = dict[str, float]


def main(folder: Path) -> None:
    """Run until the kill, run again to the end; samples and what each part did become the results."""
    parts = [_part(folder, KILL_AT), _part(folder, None)]
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    seen = [(r["round"], r["client"]) for r in records]
    found = {
        "study": STUDY,
        "parts": parts,
        "records": len(seen),
        "twice": len(seen) - len(set(seen)),
        "outcomes": {o: sum(r["outcome"] == o for r in records) for o in sorted({r["outcome"] for r in records})},
        "environment": environment(),
    }
    files.write_json(PATH.with_name(f"{STUDY}_memory.json"), found)
    draw(parts, PATH.with_name(f"{STUDY}_memory.png"))


def _part(folder: Path, kill_at: int | None) -> dict[str, Any]:
    """``fl-sim run``, watched; killed with no warning once it has come so far."""
    command = [sys.executable, "-m", "experiments.cli", "run", STUDY, "--out", str(folder)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    began, samples = time.monotonic(), list[Sample]()
    while run.poll() is None:
        samples.append({"seconds": round(time.monotonic() - began, 1), **_look(run.pid), "round": _rounds(folder)})
        if kill_at is not None and samples[-1]["round"] >= kill_at:
            os.kill(run.pid, signal.SIGKILL)
        time.sleep(EVERY)
    return {"exit": run.returncode, "samples": samples}


def _look(pid: int) -> Sample:
    """Megabytes of the process, and of it and all that it started (each page counted once, shared ones in shares)."""
    held = {one: _held(one) for one in _tree(pid)}
    return {"server": round(held.get(pid, 0.0)), "all": round(sum(held.values()))}


def _held(pid: int) -> float:
    """0 once it has ended. Linux alone counts pages in shares."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("Pss:"))


def _tree(pid: int) -> list[int]:
    """The process, its children and theirs."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").glob("*/children"))
        below = [int(child) for task in tasks for child in task.read_text().split()]
    except OSError:
        below = []
    return [pid, *(one for child in below for one in _tree(child))]


def _rounds(folder: Path) -> int:
    """Rounds of which an observation lies on disk."""
    return len({path.name.split("-")[0] for path in folder.glob("cells/*/observations/*")})


def draw(parts: list[dict[str, Any]], path: Path) -> None:
    """Memory against time, the crash as a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes, start = figure.subplots(), 0.0
    for number, part in enumerate(parts):
        at = [(start + s["seconds"]) / 60 for s in part["samples"]]
        for name, colour in {"all": "#2f6f8f", "server": "#c4552d"}.items():
            label = {"all": "all processes, Ray's among them", "server": "server"}[name] if not number else None
            axes.plot(at, [s[name] / 1000 for s in part["samples"]], color=colour, label=label)
        start = at[-1] * 60
        if part["exit"] < 0:
            axes.axvline(at[-1], color="#555", linestyle=":", label="killed, started again")
    axes.set(xlabel="minutes", ylabel="memory, GB", ylim=(0, None), title="100 clients, 50 rounds, 10 intercepted")
    axes.grid(color="#dfe3e8")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
