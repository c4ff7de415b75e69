"""Several runs as one: every setting once for each run, and what the runs differ in."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from experiments.report.input import Json, ReportInput
from experiments.report.letters import values
from fl_sim.core.errors import ConfigError

AXIS = "run"
_SAME = ("name", "path", "image_size", "split")
"""Of ``[data]``. Where runs differ in one of these their images do, and a PSNR of one is no better than another's."""
_ASIDE = ("name", "runtime", "grid", "attacks")
_CAUTIONS = {
    "seed": "other images, other weights",
    "evaluation.public_images": "another line-up: compare no identification",
    "evaluation.test_images": "accuracy on other images",
    "data.per_client": "another line-up: compare no identification",
}


class Difference(NamedTuple):
    """A key of the studies, what each run has there (``None``: nothing), and what follows from that, if it is much."""

    key: str
    values: list[str | None]
    caution: str


def merged(runs: Mapping[str, ReportInput]) -> ReportInput:
    """Runs by name as one report with the axis ``run``, equal settings side by side.

    Verdicts hold a defense against the undefended setting of its own run. What is said once is the first run's.

    Raises:
        ConfigError: The runs' figures do not compare.
    """
    _check(runs)
    renamed = [_renamed(name, report) for name, report in runs.items()]
    cells = [cell for report in renamed for cell in report.cells]
    order = list(dict.fromkeys(map(_place, cells)))
    parts = {part.get("label") or part["name"]: part for report in renamed[::-1] for part in report.study["attacks"]}
    return replace(
        renamed[0],
        study={**renamed[0].study, "attacks": list(parts.values())},
        cells=sorted(cells, key=lambda cell: order.index(_place(cell))),
        records=[record for report in renamed for record in report.records],
        training={name: rows for report in renamed for name, rows in report.training.items()},
        pictures=[],
        adaptive=frozenset(pair for report in renamed for pair in report.adaptive),
        guarantees={name: one for report in renamed for name, one in report.guarantees.items()},
    )


def _renamed(run: str, report: ReportInput) -> ReportInput:
    """With cells that no other run has, on the axis ``run``."""

    def of(cell: str) -> str:
        return f"{run}: {cell}"

    return replace(
        report,
        cells=[{**cell, "name": of(cell["name"]), "axes": {**cell["axes"], AXIS: run}} for cell in report.cells],
        records=[{**record, "cell": of(record["cell"])} for record in report.records],
        training={of(cell): rows for cell, rows in report.training.items()},
        adaptive=frozenset((of(cell), attack) for cell, attack in report.adaptive),
        guarantees={of(cell): one for cell, one in report.guarantees.items()},
    )


def _place(cell: Json) -> tuple[str, tuple[tuple[str, str], ...]]:
    """A cell's setting, whichever run it is of."""
    axes = cell["axes"].items()
    return cell["defense"], tuple((axis, str(v)) for axis, v in axes if axis not in {"defense", "seed", AXIS})


def _check(runs: Mapping[str, ReportInput]) -> None:
    problems = [
        f"expected runs on the same images, they differ in data.{key}: {_told(found)}"
        for key in _SAME
        if _differ(found := {name: sorted(map(str, values(run.study, "data", key))) for name, run in runs.items()})
    ]
    deltas = {name: sorted({r["delta"] for r in run.records if r["delta"] is not None}) for name, run in runs.items()}
    if not problems and _differ({name: found for name, found in deltas.items() if found}):
        problems = [f"expected one delta, from which on an image counts as recovered, got {_told(deltas)}"]
    if problems:
        raise ConfigError([f"{problem}: report them one by one" for problem in problems])


def _differ(found: Mapping[str, Any]) -> bool:
    return len(set(map(repr, found.values()))) > 1


def _told(found: Mapping[str, list[Any]]) -> str:
    return "; ".join(f"{name} has {', '.join(map(str, values)) or 'none'}" for name, values in found.items())


def differences(runs: Mapping[str, ReportInput]) -> list[Difference]:
    """Every key of the studies in which the runs differ, their grids' axes among them; ``runtime`` changes nothing."""
    flat = [dict(_flat(run.study)) for run in runs.values()]
    keys = dict.fromkeys(key for one in flat for key in one)
    found = [Difference(key, [one.get(key) for one in flat], _CAUTIONS.get(key, "")) for key in keys]
    return [difference for difference in found if len(set(difference.values)) > 1]


def _flat(study: Json) -> Iterator[tuple[str, str]]:
    """Dotted key and value in words; attacks by their label."""
    trees = {key: value for key, value in study.items() if key not in _ASIDE}
    trees |= {f"attack {part.get('label') or part['name']}": part for part in study["attacks"]}
    for key, value in trees.items():
        yield from _leaves(key, value)
    for axis, value in (study.get("grid") or {}).items():
        yield f"grid: {axis}", ", ".join(map(_word, value))


def _leaves(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, below in value.items():
            yield from _leaves(f"{key}.{name}", below)
    else:
        yield key, _word(value)


def _word(value: Any) -> str:
    if isinstance(value, dict) and "name" in value:
        rest = ", ".join(f"{name}={item}" for name, item in value.items() if name != "name")
        return f"{value['name']}({rest})" if rest else str(value["name"])
    if isinstance(value, list | tuple):
        return ", ".join(map(_word, value)) or "none"
    return "not set" if value is None else str(value)
