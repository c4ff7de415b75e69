"""The panels: what leaks, round by round or image by image, and what training gained and sent meanwhile."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from statistics import fmean
from textwrap import fill
from typing import TYPE_CHECKING

from experiments.report.drawing import GREY, Panel, Style, canvas, styles
from experiments.report.input import Json, ReportInput, against_control, attacks, per_image, records_of
from experiments.report.table import training_of
from fl_sim.metrics.intervals import Interval, mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CEILING = 60.0  # dB: above it nobody sees a difference, and exact attacks would flatten every other line
CONTROL_LINES = {
    "unrelated_gradient": ("unrelated gradient", "5 2", (0, (5, 2))),
    "mean_image": ("mean image", "1 2", (0, (1, 2))),
    "nearest_public": ("nearest public image", "7 2 1 2", (0, (7, 2, 1, 2))),
}
"""Name of a control to its words, its dashes in the legend, its dashes in matplotlib."""


PER_ROUND = "Lines are means over a round's images, bands their 95 % intervals."
PER_IMAGE = "Ticks are single images, markers their mean, bars its 95 % interval."


def leakage(report: ReportInput) -> list[Panel]:
    """PSNR, a panel for each attack: over the rounds where there are several, else image by image."""
    if not per_image(report.records, "psnr"):
        return []
    draw = _by_image if is_single_round(report) else _by_round
    return [draw(report, attack) for attack in attacks(report)]


def is_single_round(report: ReportInput) -> bool:
    return len({record["round"] for record in report.records}) == 1


def _by_round(report: ReportInput, attack: str) -> Panel:
    from matplotlib.ticker import MaxNLocator

    with canvas(attack, f"PSNR by round of {attack}, one line for each setting; the table below has the numbers") as on:
        for setting, style in styles(report).items():
            _curve(on.axes, records_of(report, setting).get(attack, []), style)
        _reference_lines(report, attack, on.axes.axhline)
        on.axes.set(xlabel="round", ylabel="PSNR in dB", ylim=_limits(report))
        on.axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        on.axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    return on.panel


def _curve(axes: "Axes", records: list[Json], style: Style) -> None:
    """Mean over a round's images, with its 95 % interval as a band."""
    rounds = sorted({record["round"] for record in records if record["psnr"]})
    means = [_mean([record for record in records if record["round"] == r]) for r in rounds]
    low = [_drawn(m.mean if m.low is None else m.low) for m in means]
    high = [_drawn(m.mean if m.high is None else m.high) for m in means]
    axes.fill_between(rounds, low, high, color=style.colour, alpha=0.15, linewidth=0)
    axes.plot(
        rounds,
        [_drawn(m.mean) for m in means],
        color=style.colour,
        marker=style.marker,
        ms=3 + style.width,
        lw=style.width,
    )


def _by_image(report: ReportInput, attack: str) -> Panel:
    """One line of dots for each setting: every image, and the mean with its 95 % interval."""
    drawn = list(styles(report).items())
    told = f"PSNR of every image by {attack}, one line of dots for each setting; the table below has the numbers"
    with canvas(attack, told, height=1.3 + 0.34 * len(drawn)) as on:
        for place, (setting, style) in enumerate(drawn):
            _dots(on.axes, place, records_of(report, setting).get(attack, []), style)
        _reference_lines(report, attack, on.axes.axvline)
        on.axes.set(xlabel="PSNR in dB", xlim=_limits(report), ylim=(len(drawn) - 0.5, -0.5))
        on.axes.set_yticks(range(len(drawn)), [_wrapped(setting.label) for setting, _ in drawn])
    return on.panel


def _wrapped(label: str) -> str:
    """In short lines, broken behind parentheses rather than inside numbers."""
    return fill(label.replace("(", "( "), 20).replace("( ", "(")


def _dots(axes: "Axes", place: int, records: list[Json], style: Style) -> None:
    values = [_drawn(value) for value in per_image(records, "psnr")]
    if not values:
        return
    axes.plot(values, [place] * len(values), "|", color=style.colour, alpha=0.55, ms=11)
    mean, low, high = _mean(records)
    ends = [_drawn(mean if end is None else end) for end in (low, high)]
    axes.plot(ends, [place, place], color=style.colour, lw=2)
    axes.plot([_drawn(mean)], [place], color=style.colour, marker=style.marker, ms=7, mec="white")


def _mean(records: list[Json]) -> Interval:
    return mean_interval(per_image(records, "psnr"))


def _drawn(psnr: float) -> float:
    return min(psnr, CEILING)


def _reference_lines(report: ReportInput, attack: str, line: Callable[..., object]) -> None:
    """Each control's mean over all settings of the panel."""
    mine = [record for record in report.records if record["attack"] == attack]
    for name, (_, _, dashes) in CONTROL_LINES.items():
        if values := [control for _, control in against_control(mine, name)]:
            line(_drawn(fmean(values)), color=GREY, linestyle=dashes, linewidth=1.2, zorder=1)


def _limits(report: ReportInput) -> tuple[float, float]:
    """One PSNR axis for all panels, so that they compare."""
    values = per_image(report.records, "psnr")
    values += [pair[1] for name in CONTROL_LINES for pair in against_control(report.records, name)]
    return min(_drawn(value) for value in values) - 1.5, max(_drawn(value) for value in values) + 1.5


def training(report: ReportInput) -> list[Panel]:
    """Test accuracy, and what all clients have sent so far, by round; each the mean over seeds."""
    if not any(report.training.values()):
        return []
    most = max(sum(row["bytes_up"] for row in rows) for rows in report.training.values())
    unit, factor = next((u, f) for u, f in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("bytes", 1)) if most >= f or f == 1)
    return [
        _training(report, "Test accuracy", "% correct", lambda rows: [100 * row["accuracy"] for row in rows]),
        _training(
            report, "Sent by all clients so far", unit, lambda rows: [*accumulate(r["bytes_up"] / factor for r in rows)]
        ),
    ]


def _training(report: ReportInput, title: str, unit: str, values: Callable[[list[Json]], Sequence[float]]) -> Panel:
    from matplotlib.ticker import MaxNLocator

    with canvas(title, f"{title} by round, one line for each setting") as on:
        for setting, style in styles(report).items():
            if not (seeds := training_of(report, setting)):
                continue
            rounds = [row["round"] for row in min(seeds, key=len)]
            means = [fmean(column) for column in zip(*map(values, seeds), strict=False)]  # a seed may still be running
            on.axes.plot(rounds, means, color=style.colour, marker=style.marker, ms=3 + style.width, lw=style.width)
        on.axes.set(xlabel="round (0: before training)", ylabel=unit)
        on.axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return on.panel
