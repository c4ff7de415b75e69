"""A tiny study, run in this process, and its records."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import config, pipeline
from experiments.pipeline import Run
from experiments.present import present
from experiments.watch import Silent
from fl_sim.runtime.store import RunStore
from tests.experiments.studies import TINY

Records = Mapping[tuple[str, str, int, int], dict[str, Any]]


def run_tiny(folder: Path, text: str = TINY) -> Run:
    path = folder.parent / "tiny.toml"
    path.write_text(text)
    with RunStore(folder) as store:
        pipeline.create(store, config.load(path), config.question(path), "test")
        run = pipeline.opened(store, "inline", None)
        run.simulate_and_attack(Silent())
        run.evaluate(Silent())
        present(run)
        return run


def records(folder: Path) -> Records:
    """All but what a clock decides."""
    found = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    keys = [(r["cell"], r["attack"], r["round"], r["client"]) for r in found]
    assert len(set(keys)) == len(keys)
    return {k: {**r, "seconds": None} for k, r in zip(keys, found, strict=True)}
