"""The file of results: whole after every record, so that an interrupted run goes on where it was."""

import json
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from fl_sim.runtime import files

Record: TypeAlias = dict[str, Any]

PATH = Path(__file__).parents[1] / "experiments" / "results" / "inverting_gradients.json"


def read(path: Path) -> list[Record]:
    """The records so far; none where there is no file."""
    records: list[Record] = files.read_json(path)["records"] if path.exists() else []
    return records


def write(path: Path, records: list[Record]) -> None:
    """All records, replacing the file; lists of numbers stand on one line."""
    text = json.dumps({"records": records}, indent=1, allow_nan=False)
    files.write(path, re.sub(r"\[[\d\s.,e+-]*\]", lambda found: " ".join(found[0].split()), text).encode() + b"\n")


def environment() -> Record:
    """Where a record was made: the commit and versions, and the machine in words."""
    return {
        "commit": _commit(),
        "machine": f"{os.cpu_count()}-core {platform.machine()} CPU, 1 thread",
        "python": platform.python_version(),
        **{name: _version(name) for name in ("fl-sim", "torch", "breaching")},
    }


def _commit() -> str | None:
    """What the records of other measurements say does not count as a change."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=PATH.parents[2], capture_output=True, text=True, check=False).stdout

    changed = git(
        "status", "--porcelain", "--untracked-files=no", "--", ".", f":!{PATH.parent.relative_to(PATH.parents[2])}"
    )
    return (git("rev-parse", "--short", "HEAD").strip() + ("-dirty" if changed else "")) or None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def spread(values: Sequence[float]) -> str:
    """The median, the least and the most, in words."""
    return f"{median(values):.3g} [{min(values):.3g}, {max(values):.3g}]"
