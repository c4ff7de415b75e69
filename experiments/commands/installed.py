"""Commands that look at this installation."""

import inspect
import json as json_
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape

from experiments import config, terminal
from experiments.commands.shell import FAILED, OK, err, out, text_of
from fl_sim.core.errors import ConfigError, suggestion
from fl_sim.core.part import in_a_line, units

_LISTS = ("attacks", "defenses", "datasets", "models", "priors", "predictors", "studies")


def list_(what: str, *, json: bool) -> None:
    if what not in _LISTS:
        raise ConfigError(f"expected one of {', '.join(_LISTS)}, got {what!r}{suggestion(what, _LISTS)}")
    rows = _rows(what)
    if json:
        print(json_.dumps(rows, indent=1))
        return
    out.print(terminal.catalogue(what, rows))


def doctor(data_dir: Path | None, *, json: bool) -> None:
    """Exit 0: everything that is needed works; 1: something does not."""
    from experiments.doctor import examine

    found = examine(text_of(data_dir))
    broken = [one for one in found if one.state == "broken"]
    if json:
        print(json_.dumps({"whole": not broken, "checks": [asdict(one) for one in found]}, indent=1))
    else:
        out.print(terminal.checked([asdict(one) for one in found]))
    sys.exit(FAILED if broken else OK)


def selftest(processes: int, *, json: bool) -> None:
    from experiments.checks import run_checks

    found = []
    for check in run_checks(processes):
        found.append(check)
        err.print(f"[{'green' if check.passed else 'red'}]{'pass' if check.passed else 'FAIL'}[/] {escape(str(check))}")
    passed = all(check.passed for check in found)
    if json:
        print(json_.dumps({"passed": passed, "checks": [check.as_dict() for check in found]}, indent=1))
    else:
        out.print(f"{sum(c.passed for c in found)} passed, {sum(not c.passed for c in found)} failed")
    sys.exit(OK if passed else FAILED)


def _rows(what: str) -> list[dict[str, Any]]:
    if what == "studies":
        return [{"name": name, "question": config.question(config.find(name))} for name in config.bundled()]
    if what == "defenses":
        return _defenses()
    return [
        {"name": name, "parameters": _parameters(factory), "about": _about(what, name, factory)}
        for name, factory in _registry(what).items()
    ]


def _defenses() -> list[dict[str, Any]]:
    """Also what each changes, what it draws that may become known, and what an adversary who knows it uses."""
    from defenses import DEFENSES
    from fl_sim.core.contracts import DataDefense, Defense, ModelDefense, has_density

    rows = [
        {"name": "none", "parameters": "", "changes": "", "leaks": "", "density": "", "about": "The update as it is."}
    ]
    for name, kind in DEFENSES.items():
        assert isinstance(kind, type)
        stages = {Defense: "update", DataDefense: "data", ModelDefense: "model"}
        changes = next((stage for base, stage in stages.items() if issubclass(kind, base)), "gradient")
        rows.append(
            {
                "name": name,
                "parameters": _parameters(kind),
                "changes": changes,
                "leaks": ", ".join(sorted(getattr(kind, "leaks", ()))),
                "density": "its own" if has_density(kind) else f"none; use {kind.surrogate}",  # type: ignore[attr-defined]
                "about": _about("defenses", name, kind),
            }
        )
    return rows


def _about(what: str, name: str, factory: Callable[..., object]) -> str:
    first = in_a_line(factory)
    if what != "attacks":
        return first
    from attacks import ALIASES

    also = [alias for alias, of in ALIASES.items() if of == name]
    return f"{first} Also: {', '.join(also)}." if also else first


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
    if what == "priors":
        from attacks.priors import PRIORS

        return PRIORS
    if what == "predictors":
        from experiments.risk import PREDICTORS

        return PREDICTORS
    from fl_sim.models import MODELS

    return MODELS


def _parameters(factory: Callable[..., object]) -> str:
    shown = [p for p in inspect.signature(factory).parameters.values() if p.name not in {"task", "source", "_"}]
    of = units(factory)
    texts = [p.name if p.default is p.empty else f"{p.name}={p.default}" for p in shown]
    return ", ".join(f"{text} [{of[p.name]}]" if p.name in of else text for p, text in zip(shown, texts, strict=True))
