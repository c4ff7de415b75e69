"""Leakage and its price on one time axis: for each setting, panels one below the other."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from experiments.report import units
from experiments.report.axes import band, decibels, drawn, reference_lines, round_axis
from experiments.report.cost import training_by_round
from experiments.report.drawing import COLOURS, GREY, INK, MARKERS, Panel, canvas
from experiments.report.figures import is_single_round
from experiments.report.input import UNDEFENDED, Json, ReportInput, Setting, Stance, records_of, settings, stance
from experiments.report.rounds import by_round

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INFORMED = COLOURS[1]
WORDS: dict[Stance, str] = {
    "undefended": "",
    "naive": "makes no use of the defense",
    "sent": "compares what was sent",
    "chosen": "set up for this defense",
    "adaptive": "knows the defense",
}


class Line(NamedTuple):
    """An attack in a setting: informed ones are dashed, hollow and of another colour than naive ones."""

    attack: str
    words: str
    informed: bool
    marker: str
    glyph: str

    @property
    def colour(self) -> str:
        return _INFORMED if self.informed else INK

    @property
    def dashes(self) -> str:
        """In the legend."""
        return "6 3" if self.informed else "none"


class Stack(NamedTuple):
    setting: Setting
    lines: list[Line]
    panel: Panel


class Price(NamedTuple):
    """A panel below the leakage."""

    label: str
    value: Callable[[Json], float | None]


def stacks(report: ReportInput) -> list[Stack]:
    """One for each setting that was attacked in several rounds; panels without data are left out."""
    leaked, trained = by_round(report), training_by_round(report)
    if not leaked or is_single_round(report):
        return []
    prices = [price for price in _prices(trained) if any(price.value(row) for row in trained)]
    return [
        _stack(report, setting, [row for row in leaked if row["setting"] == setting.label], trained, prices)
        for setting in settings(report)
        if any(row["setting"] == setting.label for row in leaked)
    ]


def _prices(trained: list[Json]) -> list[Price]:
    unit, size = units.byte_scale(max((row["bytes_up"] for row in trained), default=0))
    return [
        Price("accuracy, %", lambda row: 100 * float(row["accuracy"]["mean"])),
        Price("epsilon", lambda row: row["epsilon"] and row["epsilon"]["most"]),
        Price(f"sent, {unit}", lambda row: float(row["bytes_up"]) / size),
    ]


def _stack(
    report: ReportInput, setting: Setting, leaked: list[Json], trained: list[Json], prices: Sequence[Price]
) -> Stack:
    told = f"{setting.label}: by round, PSNR of each attack{''.join(f'; {price.label}' for price in prices)}"
    lines = _lines(report, setting)
    with canvas(setting.label, told, heights=[2.5, *[1.15] * len(prices)]) as on:
        for line in lines:
            _leakage(on.stack[0], line, [row for row in leaked if row["attack"] == line.attack])
        reference_lines([r for r in report.records if r["cell"] in setting.cells], on.stack[0].axhline)
        decibels(on.stack[0], report)
        for axes, price in zip(on.stack[1:], prices, strict=True):
            _price(axes, price, report, setting, trained)
        for axes in on.stack:
            round_axis(axes, report)
            axes.label_outer()
    return Stack(setting, lines, on.panel)


def _lines(report: ReportInput, setting: Setting) -> list[Line]:
    """Markers are the same in every setting."""
    known = list(dict.fromkeys(record["attack"] for record in report.records))
    shapes = [("o", "●"), *MARKERS]
    found = []
    for attack in records_of(report, setting):
        how = stance(report, setting, attack)
        marker = shapes[known.index(attack) % len(shapes)]
        found.append(Line(attack, WORDS[how], how in {"sent", "chosen", "adaptive"}, *marker))
    return found


def _leakage(axes: "Axes", line: Line, rows: list[Json]) -> None:
    band(axes, rows, line.colour)
    axes.plot(
        [row["round"] for row in rows],
        [drawn(row["psnr"]["mean"]) for row in rows],
        color=line.colour,
        linestyle=(0, (5, 2)) if line.informed else "solid",
        marker=line.marker,
        markerfacecolor="white" if line.informed else line.colour,
        ms=5.5,
        lw=1.6,
    )


def _price(axes: "Axes", price: Price, report: ReportInput, setting: Setting, trained: list[Json]) -> None:
    """The setting's own line, and in grey that of the same without a defense."""
    others = [s for s in settings(report) if s.others == setting.others and s.defense == UNDEFENDED and s != setting]
    for one, colour, width in [*[(other, GREY, 1.0) for other in others], (setting, INK, 1.8)]:
        mine = [row for row in trained if row["setting"] == one.label]
        points = [(row["round"], found) for row in mine if (found := price.value(row)) is not None]
        if one == setting and not points:
            axes.text(0.5, 0.45, "no guarantee", color=GREY, ha="center", transform=axes.transAxes)
        axes.plot([p[0] for p in points], [p[1] for p in points], color=colour, lw=width, ls="solid")
    most = max(found for row in trained if (found := price.value(row)) is not None)
    axes.set(ylabel=price.label, ylim=(0, 1.08 * most))
