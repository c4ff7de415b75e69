"""The run folder: what each stage leaves for the next.

RUN/
  run.json                                     study, its hash, versions, command
  cells/CELL/training.jsonl                    a line a round, from 0 (before any training)
  cells/CELL/checkpoint.safetensors            weights and strategy memory after the last whole round
  cells/CELL/broadcast/r0001.safetensors       weights sent in a round
  cells/CELL/observations/r0001-c0000.safetensors
  cells/CELL/reconstructions/ATTACK/r0001-c0000.safetensors, or .failed.json
  records.jsonl                                a line a judged reconstruction
  report.html, table.md, summary.json, log.txt
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fl_sim.core.errors import StoreError
from fl_sim.runtime import files
from fl_sim.runtime.cells import CellStore
from fl_sim.runtime.files import JSON

_OWN = {".lock", "run.json", "cells", "records.jsonl", "report.html", "table.md", "summary.json", "log.txt"}


class RunStore:
    """A run folder, held by one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    def cell(self, folder: str) -> CellStore:
        return CellStore(self.path / "cells" / folder)

    def exists(self) -> bool:
        return (self.path / "run.json").exists()

    def about(self) -> JSON:
        """What ``run.json`` says.

        Raises:
            StoreError: This is no run folder.
        """
        if not self.exists():
            raise StoreError(f"expected a run folder with run.json, got {self.path}: make one with `fl-sim run STUDY`")
        about: JSON = files.read_json(self.path / "run.json")
        if missing := {"study", "hash", "attacks_hash", "question", "command", "created", "versions"} - set(about):
            raise StoreError(f"expected {sorted(missing)} in {self.path / 'run.json'} too: start over with --fresh")
        return about

    def save_about(self, about: JSON) -> None:
        files.write_json(self.path / "run.json", about)

    def clear(self) -> None:
        """Delete the run, to start over.

        Raises:
            StoreError: The folder holds other things: nothing is deleted.
        """
        if foreign := sorted(p.name for p in self.path.iterdir() if p.name not in _OWN):
            raise StoreError(f"expected nothing but a run in {self.path}, it also holds {foreign}: delete it yourself")
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in {".lock", "log.txt"}:
                path.unlink()

    def forget(self) -> None:
        """Delete what was made of the observations, which stay."""
        for made in self.path.glob("cells/*/reconstructions"):
            shutil.rmtree(made)
        for path in (self.path / "run.json", self.records_path):
            path.unlink(missing_ok=True)

    def add_record(self, record: JSON) -> None:
        files.append_line(self.path / "records.jsonl", record)

    def records(self) -> Iterator[JSON]:
        """As written; where a job was judged twice, the last line counts."""
        last = {(r["cell"], r["attack"], r["round"], r["client"]): r for r in files.read_lines(self.records_path)}
        yield from last.values()

    @property
    def records_path(self) -> Path:
        return self.path / "records.jsonl"

    def __enter__(self) -> "RunStore":
        """Hold the folder.

        Raises:
            StoreError: Another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / ".lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "unknown"
            self._lock.close()
            raise StoreError(
                f"{self.path} is in use by process {holder}: wait for it, or choose another --out"
            ) from error
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()
