"""``fl-sim import``: recorded updates as a run folder, and what is wrong with the record."""

import json as json_
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from experiments import terminal
from experiments.commands.shell import FAILED, err, logging_to, out
from fl_sim.core.errors import ConfigError

OWN = "audit.toml"
"""In the folder that ``Intercept`` wrote."""


def import_(source: Path, folder: Path | None, *, fresh: bool, json: bool) -> None:
    """Make a run folder of what an AUDIT.toml names, or of what ``Intercept`` wrote; exit 1 where a mistake shows."""
    from experiments.audit.config import load
    from experiments.audit.importing import Import
    from fl_sim.runtime.store import RunStore

    path = source / OWN if source.is_dir() else source
    audit = load(_there(path))
    place = path.parent if audit.task is None else folder or Path("runs") / audit.name
    if audit.task is not None and place.resolve() == path.parent.resolve():
        raise ConfigError(
            f"expected a folder for the run alone, got {place}, where {path.name} is: choose another --out"
        )
    with RunStore(place) as store, logging_to(place / "log.txt"):
        findings = _imported(store, Import(audit, path.parent), f"fl-sim import {source}", fresh=fresh)
    if json:
        print(json_.dumps({"run": str(place), "findings": findings}, indent=1))
    else:
        out.print(terminal.diagnoses(findings))
        out.print(f"next: fl-sim attack {place} --attack inverting_gradients", soft_wrap=True)
    if any(finding["verdict"] == "wrong" for finding in findings):
        sys.exit(FAILED)


def adopt(folder: Path) -> None:
    """Where ``folder`` is what ``Intercept`` wrote, make it a run; what seems wrong with it goes to stderr."""
    from experiments.audit.config import load
    from experiments.audit.importing import Import
    from fl_sim.runtime.store import RunStore

    if (folder / "run.json").exists() or not (folder / OWN).exists():
        return
    audit = load(folder / OWN)
    with RunStore(folder) as store:
        findings = _imported(store, Import(audit, folder), f"fl-sim import {folder}", fresh=False)
    for finding in (finding for finding in findings if finding["verdict"] == "wrong"):
        err.print(f"[yellow]record:[/] {escape(finding['diagnosis'])}: {escape(finding['says'])}", soft_wrap=True)


def _imported(store: Any, imported: Any, command: str, *, fresh: bool) -> Sequence[dict[str, Any]]:
    """The findings; a run of the same files is left as it is."""
    from experiments import pipeline
    from experiments.audit.cell import FOLDER

    source = {"config": imported.audit.model_dump(mode="json"), "files": imported.digests()}
    place = store.cell(FOLDER)
    if store.exists() and not fresh:
        before: dict[str, Any] = store.about().get("audit", {})
        if {name: before.get(name) for name in source} != source:
            raise ConfigError(f"{store.path} holds another import: choose another --out, or start over with --fresh")
        return list(before["findings"])
    if imported.audit.task is not None:
        store.clear()
    else:
        store.forget()
    findings = [finding.as_dict() for finding in imported.into(place)]
    audit = {**source, "findings": findings}
    pipeline.create(store, imported.study(place), imported.audit.question, command, audit)
    return findings


def _there(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(
            f"expected an AUDIT.toml, or a folder that Intercept wrote with {OWN} in it, got {path}: write one with "
            'model = "package.module:factory"; docs/audit.md says how'
        )
    return path
