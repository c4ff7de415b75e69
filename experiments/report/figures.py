"""The panels that compare settings: what leaks, round by round or image by image, and what training gained and sent."""

from collections.abc import Callable
from textwrap import fill
from typing import TYPE_CHECKING

from experiments.report import units
from experiments.report.axes import band, decibels, drawn, psnr_limits, reference_lines, round_axis
from experiments.report.cost import training_by_round
from experiments.report.drawing import Panel, Style, canvas, styles
from experiments.report.images import of_metric
from experiments.report.input import Json, ReportInput, attacks, per_image, records_of
from experiments.report.rounds import by_round

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PER_ROUND = (
    "Lines are means over a round's images, bands their 95 % intervals over clients and seeds, cut off at the axis' "
    "ends; no band where one client alone was attacked."
)
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
    rows = [row for row in by_round(report) if row["attack"] == attack]
    with canvas(attack, f"PSNR by round of {attack}, one line for each setting; the table below has the numbers") as on:
        for setting, style in styles(report).items():
            mine = [row for row in rows if row["setting"] == setting.label]
            band(on.axes, mine, style.colour)
            _line(on.axes, [(row["round"], drawn(row["psnr"]["mean"])) for row in mine], style)
        reference_lines([record for record in report.records if record["attack"] == attack], on.axes.axhline)
        decibels(on.axes, report)
        round_axis(on.axes, report)
    return on.panel


def _line(axes: "Axes", points: list[tuple[int, float]], style: Style) -> None:
    rounds, values = [point[0] for point in points], [point[1] for point in points]
    every = max(1, len(points) // 12)
    axes.plot(
        rounds, values, color=style.colour, marker=style.marker, ms=3 + style.width, lw=style.width, markevery=every
    )


def _by_image(report: ReportInput, attack: str) -> Panel:
    """One line of dots for each setting: every image, and the mean with its 95 % interval."""
    lines = list(styles(report).items())
    told = f"PSNR of every image by {attack}, one line of dots for each setting; the table below has the numbers"
    with canvas(attack, told, heights=[1.3 + 0.34 * len(lines)]) as on:
        for place, (setting, style) in enumerate(lines):
            _dots(on.axes, place, records_of(report, setting).get(attack, []), style)
        reference_lines([record for record in report.records if record["attack"] == attack], on.axes.axvline)
        on.axes.set(xlabel="PSNR in dB", xlim=psnr_limits(report), ylim=(len(lines) - 0.5, -0.5))
        on.axes.set_yticks(range(len(lines)), [_wrapped(setting.label) for setting, _ in lines])
    return on.panel


def _wrapped(label: str) -> str:
    """In short lines, broken behind parentheses rather than inside numbers."""
    broken = fill(label.replace("(", "(\0 ").replace(")", "\0)"), 22, break_long_words=False)
    return broken.replace("(\0 ", "(").replace("\0", "")


def _dots(axes: "Axes", place: int, records: list[Json], style: Style) -> None:
    values = [drawn(value) for value in per_image(records, "psnr")]
    if not values:
        return
    axes.plot(values, [place] * len(values), "|", color=style.colour, alpha=0.55, ms=11)
    found = of_metric(records, "psnr") or {}
    mean, low, high = found["mean"], found["low"], found["high"]
    ends = [drawn(mean if end is None else end) for end in (low, high)]
    axes.plot(ends, [place, place], color=style.colour, lw=2)
    axes.plot([drawn(mean)], [place], color=style.colour, marker=style.marker, ms=7, mec="white")


def training(report: ReportInput) -> list[Panel]:
    """Test accuracy, epsilon where there is any, and what all clients have sent so far, by round; means over seeds."""
    rows = training_by_round(report)
    if not rows:
        return []
    unit, size = units.byte_scale(max(row["bytes_up"] for row in rows))
    wanted: list[tuple[str, str, Callable[[Json], float | None]]] = [
        ("Test accuracy", "% correct", lambda row: 100 * float(row["accuracy"]["mean"])),
        ("Epsilon spent so far", "epsilon", lambda row: row["epsilon"] and row["epsilon"]["most"]),
        ("Sent by all clients so far", unit, lambda row: float(row["bytes_up"]) / size),
    ]
    return [_training(report, rows, *one) for one in wanted if any(one[2](row) for row in rows)]


def _training(
    report: ReportInput, rows: list[Json], title: str, unit: str, value: Callable[[Json], float | None]
) -> Panel:
    with canvas(title, f"{title} by round, one line for each setting") as on:
        for setting, style in styles(report).items():
            mine = [row for row in rows if row["setting"] == setting.label]
            _line(on.axes, [(row["round"], found) for row in mine if (found := value(row)) is not None], style)
        on.axes.set(ylabel=unit)
        round_axis(on.axes, report)
    return on.panel
