"""Commands that work on a run folder."""

import json as json_
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from experiments import config, terminal
from experiments.commands.auditing import adopt
from experiments.commands.shell import FAILED, OVER, err, executor_named, logging_to, out, text_of
from experiments.parts import AttackPart
from fl_sim.core.errors import ConfigError


def run(
    study_name: str,
    overrides: Sequence[str],
    folder: Path | None,
    data_dir: Path | None,
    executor: str,
    *,
    fresh: bool,
    json: bool,
    fail_if: Sequence[str] = (),
) -> None:
    """From study to report, in a new or an existing run folder."""
    from experiments import pipeline
    from experiments.check import check, load
    from experiments.gate import limit
    from fl_sim.runtime.store import RunStore

    where, path, limits = executor_named(executor), config.find(study_name), [limit(text) for text in fail_if]
    study = load(path, overrides)
    check(study, text_of(data_dir))
    place = folder or pipeline.default_folder(study)
    with RunStore(place) as store, logging_to(place / "log.txt"):
        if fresh:
            store.clear()
        pipeline.create(store, study, config.question(path), _command(study_name, overrides))
        opened = pipeline.opened(store, where, text_of(data_dir))
        stages(opened, ("simulate_and_attack", "evaluate"))
        finish(opened, limits, json=json)


def stage(name: str, folder: Path, data_dir: Path | None, executor: str) -> None:
    """One stage of an existing run."""
    from experiments import pipeline
    from fl_sim.runtime.store import RunStore

    _existing(folder)
    with RunStore(folder) as store, logging_to(folder / "log.txt"):
        opened = pipeline.opened(store, executor_named(executor), text_of(data_dir))
        if name == "simulate" and opened.imported:
            raise ConfigError(f"{folder} holds recorded updates, which nothing simulates: go on with fl-sim attack")
        stages(opened, (name,))


def report(folders: Sequence[Path], data_dir: Path | None, fail_if: Sequence[str], page: Path | None) -> None:
    """The report of an existing run; of several, one page that compares them."""
    if len(folders) > 1:
        _compare(folders, data_dir, fail_if, page)
        return
    from experiments import pipeline
    from experiments.gate import limit
    from fl_sim.runtime.store import RunStore

    if page is not None:
        raise ConfigError("expected --out for several runs only: a single run's report is written into its own folder")
    limits, (folder,) = [limit(text) for text in fail_if], folders
    _existing(folder)
    with RunStore(folder) as store, logging_to(folder / "log.txt"):
        finish(pipeline.opened(store, "inline", text_of(data_dir)), limits, json=False)


def _compare(folders: Sequence[Path], data_dir: Path | None, fail_if: Sequence[str], page: Path | None) -> None:
    from experiments import pipeline
    from experiments.present import compare, report_input
    from fl_sim.runtime.store import RunStore

    if fail_if:
        raise ConfigError("expected --fail-if for a single run, got several: report them one by one")
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise ConfigError(f"expected different runs, got {', '.join(names)}")
    found = {}
    for name, folder in zip(names, folders, strict=True):
        _existing(folder)
        with RunStore(folder) as store:
            found[name] = report_input(pipeline.opened(store, "inline", text_of(data_dir)))
    place = page or folders[0].parent / "comparison.html"
    out.print(terminal.results(compare(found, place)["rows"]))
    out.print(f"report: {place}", soft_wrap=True)


def export(folder: Path, place: Path, data_dir: Path | None, *, tensorboard: bool) -> None:
    """The records of a run as a table, or as TensorBoard's events."""
    from experiments import pipeline
    from fl_sim.runtime.store import RunStore

    _existing(folder)
    with RunStore(folder) as store:
        opened = pipeline.opened(store, "inline", text_of(data_dir))
        said = _events(opened, place) if tensorboard else _table(opened, place)
    out.print(f"{place}: {said}", soft_wrap=True)


def _table(opened: Any, file: Path) -> str:
    from experiments.export import export

    return f"{export(opened, file)} rows"


def _events(opened: Any, folder: Path) -> str:
    from experiments import tensorboard
    from experiments.present import report_input

    return (
        f"{tensorboard.write(report_input(opened), folder)} settings; look at them with: tensorboard --logdir {folder}"
    )


def attack(
    folder: Path,
    name: str | None,
    data_dir: Path | None,
    executor: str,
    ray_address: str | None,
    *,
    retry_failed: bool,
) -> None:
    """The attacks that are missing, and perhaps a new one."""
    from experiments import pipeline
    from fl_sim.runtime.store import RunStore

    _existing(folder)
    with RunStore(folder) as store, logging_to(folder / "log.txt"):
        if name is not None:
            pipeline.add_attack(store, _attack_part(name))
        opened = pipeline.opened(store, executor_named(executor), text_of(data_dir))
        if ray_address is not None:
            opened = opened.on_cluster(ray_address)
        if retry_failed:
            for cell in opened.cells:
                store.cell(cell.folder).forget_failures()
        stages(opened, ("attack",))
        if _failed(opened):
            sys.exit(FAILED)


def stages(opened: Any, names: Sequence[str]) -> None:
    """Stages of a run, one after the other, with bars."""
    from experiments.watch import Bars

    with Bars(err, **opened.progress()) as watch:
        for name in names:
            getattr(opened, name)(watch)


def finish(opened: Any, limits: list[Any], *, json: bool) -> None:
    """The report, and an exit code where something failed or a limit is broken."""
    from experiments.gate import broken
    from experiments.present import present

    page, rows, found = present(opened)
    over = [*_unfinished(opened), *broken(found, limits)] if limits else []
    if json:
        ended, failed = opened.done()[1:]
        about = {"run": str(opened.store.path), "report": page, "jobs": ended, "failed": failed, "over": over}
        print(json_.dumps({**about, "rows": rows}, indent=1))
    else:
        out.print(terminal.results(rows))
        out.print(f"report: {page}", soft_wrap=True)
    for line in over:
        err.print(escape(f"over the limit: {line}"), soft_wrap=True)
    failed = _failed(opened)
    if over or failed:
        sys.exit(OVER if over else FAILED)


def _unfinished(opened: Any) -> list[str]:
    """What has not been attacked has not been measured."""
    done = opened.imported or opened.finished()
    return [] if done else ["the run is not finished: `fl-sim run` goes on where it was"]


def _failed(opened: Any) -> bool:
    """Whether some attack failed, or none could be tried; says so."""
    ended, failed = opened.done()[1:]
    if failed:
        err.print(f"{failed} attack jobs failed; the report names the reasons")
    if opened.study.attacks and not ended:
        err.print("no update could be used; each round's training.jsonl names the reasons")
    return bool(failed or (opened.study.attacks and not ended))


def _attack_part(text: str) -> AttackPart:
    name, _, arguments = text.partition(":")
    pairs = [pair.partition("=") for pair in arguments.split(",") if pair]
    if any(not equals for _, equals, _ in pairs):
        raise ConfigError(f"expected NAME or NAME:key=value,key=value, got {text!r}")
    return AttackPart(name=name, **{key: config.toml_value(value) for key, _, value in pairs})


def _existing(folder: Path) -> None:
    adopt(folder)
    if not (folder / "run.json").exists():
        raise ConfigError(f"expected a run folder with run.json, got {folder}: make one with `fl-sim run STUDY`")


def _command(study: str, overrides: Sequence[str]) -> str:
    return " ".join(["fl-sim run", study, *overrides])
