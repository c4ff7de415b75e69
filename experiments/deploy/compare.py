"""Are two run folders the same run, but for clocks and hosts? ``python -m experiments.deploy.compare A B``."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_APART = {"seconds": None, "versions": None}


def differences(a: Path, b: Path) -> list[str]:
    """Records and rounds that are not equal, to the last bit, or that only one run has."""
    left, right = dict(_rows(a)), dict(_rows(b))
    return [
        f"{name}: {_differ(left.get(name), right.get(name))}"
        for name in sorted(left.keys() | right.keys())
        if left.get(name) != right.get(name)
    ]


def _rows(run: Path) -> Iterator[tuple[str, Row]]:
    for line in (run / "records.jsonl").read_text().splitlines():
        record = json.loads(line)
        place = [str(record[key]) for key in ("cell", "attack", "round", "client")]
        yield f"record {', '.join(place)}", {**record, **_APART}
    for path in sorted(run.glob("cells/*/training.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            yield f"{path.parent.name}, round {row['round']}", {**row, **_APART}


def _differ(left: Row | None, right: Row | None) -> str:
    if left is None or right is None:
        return "only in one of them"
    keys = [key for key in left.keys() | right.keys() if left.get(key) != right.get(key)]
    return "; ".join(f"{key} is {left.get(key)} and {right.get(key)}" for key in sorted(keys))


if __name__ == "__main__":
    first, second = Path(sys.argv[1]), Path(sys.argv[2])
    if found := differences(first, second):
        sys.exit("\n".join(found))
    print(f"{len(dict(_rows(first)))} records and rounds, all equal")
