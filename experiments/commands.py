"""What the command line does. Prints to stdout only what was asked for; everything else goes to stderr."""

import inspect
import json as json_
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.markup import escape

from experiments import config, terminal
from experiments.config import AttackPart
from fl_sim.core.errors import ConfigError, FlSimError, suggestion

OK, FAILED, WRONG = 0, 1, 2

_LISTS = ("attacks", "defenses", "datasets", "models", "studies")

out, err = Console(highlight=False), Console(stderr=True, highlight=False)


def run(
    study_name: str,
    overrides: Sequence[str],
    folder: Path | None,
    data_dir: Path | None,
    executor: str,
    *,
    fresh: bool,
    json: bool,
) -> None:
    """From study to report, in a new or an existing run folder."""
    from experiments import pipeline
    from experiments.check import check, load
    from fl_sim.runtime.store import RunStore

    where, path = _executor(executor), config.find(study_name)
    study = load(path, overrides)
    check(study, _text(data_dir))
    place = folder or pipeline.default_folder(study)
    with RunStore(place) as store, logging_to(place / "log.txt"):
        if fresh:
            store.clear()
        pipeline.create(store, study, config.question(path), _command(study_name, overrides, data_dir))
        opened = pipeline.opened(store, where, _text(data_dir))
        _stages(opened, ("simulate_and_attack", "evaluate"))
        _finish(opened, json=json)


def stage(name: str, folder: Path, data_dir: Path | None, executor: str) -> None:
    """One stage of an existing run."""
    from experiments import pipeline
    from fl_sim.runtime.store import RunStore

    _existing(folder)
    with RunStore(folder) as store, logging_to(folder / "log.txt"):
        opened = pipeline.opened(store, _executor(executor), _text(data_dir))
        if name == "report":
            _finish(opened, json=False)
        else:
            _stages(opened, (name,))


def attack(folder: Path, name: str | None, data_dir: Path | None, executor: str, *, retry_failed: bool) -> None:
    """The attacks that are missing, and perhaps a new one."""
    from experiments import pipeline
    from fl_sim.runtime.store import RunStore

    _existing(folder)
    with RunStore(folder) as store, logging_to(folder / "log.txt"):
        if name is not None:
            pipeline.add_attack(store, _attack_part(name))
        opened = pipeline.opened(store, _executor(executor), _text(data_dir))
        if retry_failed:
            for cell in opened.cells:
                store.cell(cell.folder).forget_failures()
        _stages(opened, ("attack",))
        _exit_if_failed(opened)


def list_(what: str, *, json: bool) -> None:
    if what not in _LISTS:
        raise ConfigError(f"expected one of {', '.join(_LISTS)}, got {what!r}{suggestion(what, _LISTS)}")
    rows = _rows(what)
    if json:
        print(json_.dumps(rows, indent=1))
        return
    out.print(terminal.listing(what, rows))


def selftest(*, json: bool) -> None:
    from experiments.checks import run_checks

    found = []
    for check in run_checks():
        found.append(check)
        err.print(f"[{'green' if check.passed else 'red'}]{'pass' if check.passed else 'FAIL'}[/] {escape(str(check))}")
    passed = all(check.passed for check in found)
    if json:
        print(json_.dumps({"passed": passed, "checks": [check.as_dict() for check in found]}, indent=1))
    else:
        out.print(f"{sum(c.passed for c in found)} passed, {sum(not c.passed for c in found)} failed")
    sys.exit(OK if passed else FAILED)


def explain(error: Exception) -> int:
    """Our own errors and the file system's in words; anything else is a bug and shows where."""
    if isinstance(error, OSError) and error.filename is not None:
        err.print(f"[red]error:[/] {escape(str(error))}: free or choose another place", soft_wrap=True)
        return WRONG
    if not isinstance(error, FlSimError):
        err.print_exception()
        return FAILED
    for line in error.problems if isinstance(error, ConfigError) else [str(error)]:
        err.print(f"[red]error:[/] {escape(line)}", soft_wrap=True)
    return WRONG


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """What Flower, Ray and Python have to say goes to a file, not between the progress bars."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.captureWarnings(capture=True)
    warnings.simplefilter("default")
    flower = logging.getLogger("flwr")
    flower.handlers.clear()
    root = logging.getLogger()
    root.addHandler(handler)
    flower.propagate = True
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
        logging.captureWarnings(capture=False)


def _stages(opened: Any, names: Sequence[str]) -> None:
    from experiments.watch import Bars

    rounds, attacks = opened.expected()
    rounds_done, attacks_done, _ = opened.done()
    judged = len(list(opened.store.records()))
    done = {"rounds_done": rounds_done, "attacks_done": attacks_done, "judged": judged}
    with Bars(err, rounds=rounds, attacks=attacks, **done) as watch:
        for name in names:
            getattr(opened, name)(watch)


def _finish(opened: Any, *, json: bool) -> None:
    from experiments.present import present

    page, rows = present(opened)
    if json:
        ended, failed = opened.done()[1:]
        about = {"run": str(opened.store.path), "report": page, "jobs": ended, "failed": failed, "rows": rows}
        print(json_.dumps(about, indent=1))
    else:
        out.print(terminal.results(rows))
        out.print(f"report: {page}", soft_wrap=True)
    _exit_if_failed(opened)


def _exit_if_failed(opened: Any) -> None:
    ended, failed = opened.done()[1:]
    if failed:
        err.print(f"{failed} attack jobs failed; the report names the reasons")
    if opened.study.attacks and not ended:
        err.print("no update could be used; each round's training.jsonl names the reasons")
    if failed or (opened.study.attacks and not ended):
        sys.exit(FAILED)


def _rows(what: str) -> list[dict[str, Any]]:
    if what == "studies":
        return [{"name": name, "question": config.question(config.find(name))} for name in config.bundled()]
    none = [{"name": "none", "parameters": "", "about": "The update as it is."}] if what == "defenses" else []
    return none + [
        {"name": name, "parameters": _parameters(factory), "about": (inspect.getdoc(factory) or "").partition("\n")[0]}
        for name, factory in _registry(what).items()
    ]


def _registry(what: str) -> Mapping[str, Callable[..., object]]:
    if what == "attacks":
        from attacks import ATTACKS

        return ATTACKS
    if what == "defenses":
        from defenses import DEFENSES

        return DEFENSES
    if what == "datasets":
        from fl_sim.data.datasets import DATASETS

        return DATASETS
    from fl_sim.models import MODELS

    return MODELS


def _parameters(factory: Callable[..., object]) -> str:
    shown = [p for p in inspect.signature(factory).parameters.values() if p.name not in {"task", "source", "_"}]
    return ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default}" for p in shown)


def _attack_part(text: str) -> AttackPart:
    name, _, arguments = text.partition(":")
    pairs = [pair.partition("=") for pair in arguments.split(",") if pair]
    if any(not equals for _, equals, _ in pairs):
        raise ConfigError(f"expected NAME or NAME:key=value,key=value, got {text!r}")
    return AttackPart(name=name, **{key: config.toml_value(value) for key, _, value in pairs})


def _executor(name: str) -> Any:
    from experiments.pipeline import Executor

    if name not in get_args(Executor):
        raise ConfigError(f"--executor: expected one of {', '.join(get_args(Executor))}, got {name!r}")
    return name


def _existing(folder: Path) -> None:
    if not (folder / "run.json").exists():
        raise ConfigError(f"expected a run folder with run.json, got {folder}: make one with `fl-sim run STUDY`")


def _command(study: str, overrides: Sequence[str], data_dir: Path | None) -> str:
    where = [f"--data-dir {data_dir}"] if data_dir else []
    return " ".join(["fl-sim run", study, *overrides, *where])


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())
