"""The page of several runs."""

from collections.abc import Mapping
from itertools import groupby
from typing import NamedTuple

from experiments.report.answer import Finding, findings
from experiments.report.compare import AXIS, differences, merged
from experiments.report.input import UNDEFENDED, Json, ReportInput
from experiments.report.letters import capabilities
from experiments.report.page import context, fill
from experiments.report.summary import summary
from experiments.report.table import summarise


class Side(NamedTuple):
    """A setting in one of the runs."""

    run: str
    finding: Finding


def render_comparison(runs: Mapping[str, ReportInput]) -> str:
    """Several runs, by name, as one page of HTML; the same input gives the same text.

    Raises:
        ConfigError: They do not compare.
    """
    report = merged(runs)
    found: Json = {
        "runs": runs,
        "letters_of": {name: capabilities(run.study) for name, run in runs.items()},
        "differences": differences(runs),
        "sides": _sides(findings(report, summarise(report))),
        "stacks": [],
    }
    return fill("comparison.html.j2", context(report) | found)


def summarise_comparison(runs: Mapping[str, ReportInput]) -> Json:
    """``runs``: the :func:`~experiments.report.summary.summary` of each. ``differences``: key, values in the order of
    the runs, caution. ``rows``: of all runs, on the axis ``run``.

    Raises:
        ConfigError: They do not compare.
    """
    return {
        "runs": {name: summary(run) for name, run in runs.items()},
        "differences": [difference._asdict() for difference in differences(runs)],
        "rows": summarise(merged(runs)),
    }


def _sides(found: list[Finding]) -> list[tuple[str, list[Side]]]:
    """By setting, whichever run it is of; its runs beside one another."""
    grouped = groupby(found, key=_name)
    return [(name, [Side(dict(one.setting.others)[AXIS], one) for one in members]) for name, members in grouped]


def _name(found: Finding) -> str:
    defense = "no defense" if found.setting.defense == UNDEFENDED else found.setting.defense
    return ", ".join([defense, *(f"{axis} {value}" for axis, value in found.setting.others if axis != AXIS)])
