"""Scales that several figures have in common, so that they compare."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

from experiments.report.drawing import GREY
from experiments.report.input import Json, ReportInput, against_control, per_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CEILING = 60.0  # dB: above it nobody sees a difference, and exact attacks would flatten every other line
CONTROL_LINES = {
    "unrelated_gradient": ("unrelated gradient", "5 2", (0, (5, 2))),
    "mean_image": ("mean image", "1 2", (0, (1, 2))),
    "nearest_public": ("nearest public image", "7 2 1 2", (0, (7, 2, 1, 2))),
}
"""Name of a control to its words, its dashes in the legend, its dashes in matplotlib."""
_TICKS = 8


def drawn(psnr: float) -> float:
    return min(psnr, CEILING)


def psnr_limits(report: ReportInput) -> tuple[float, float]:
    """Of all attacks and controls."""
    values = per_image(report.records, "psnr")
    values += [pair[1] for name in CONTROL_LINES for pair in against_control(report.records, name)]
    return min(drawn(value) for value in values) - 1.5, max(drawn(value) for value in values) + 1.5


def band(axes: "Axes", rows: Sequence[Json], colour: str) -> None:
    """The 95 % interval of each round's mean PSNR; none where a round has one client alone."""
    low = [drawn(row["psnr"]["mean" if row["psnr"]["low"] is None else "low"]) for row in rows]
    high = [drawn(row["psnr"]["mean" if row["psnr"]["high"] is None else "high"]) for row in rows]
    axes.fill_between([row["round"] for row in rows], low, high, color=colour, alpha=0.15, linewidth=0)


def reference_lines(records: Sequence[Json], line: Callable[..., object]) -> None:
    """Each control's mean over ``records``, by its own dashes."""
    for name, (_, _, dashes) in CONTROL_LINES.items():
        if values := [control for _, control in against_control(list(records), name)]:
            line(drawn(fmean(values)), color=GREY, linestyle=dashes, linewidth=1.2, zorder=1)


def decibels(axes: "Axes", report: ReportInput) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set(ylabel="PSNR in dB", ylim=psnr_limits(report))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))


def round_axis(axes: "Axes", report: ReportInput) -> None:
    """Rounds, from 0; on a logarithmic scale where those attacked lie close together at the start."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    attacked = sorted({record["round"] for record in report.records})
    last = max([*attacked, *(row["round"] for rows in report.training.values() for row in rows)], default=1)
    axes.set(xlabel="round", xlim=(-0.03 * last, 1.03 * last))
    if attacked and attacked[len(attacked) // 2] < last / 5:
        axes.set_xscale("symlog", linthresh=2)
        axes.set(xlabel="round, logarithmic", xlim=(-0.15, 1.15 * last))
        axes.set_xticks(_spread(attacked), map(str, _spread(attacked)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _spread(rounds: Sequence[int]) -> list[int]:
    """A few of them whose labels do not touch on a logarithmic scale."""
    kept = [rounds[0]]
    kept += [number for before, number in pairwise(rounds) if number > 1.3 * before]
    step = -(-len(kept) // _TICKS)
    return kept[::-1][::step][::-1]
