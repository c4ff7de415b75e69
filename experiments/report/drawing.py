"""How figures look: one style for each setting, and panels as SVG of their own, so that they can stand side by side.

Text stays text, in the page's font; the same values give the same bytes.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup, escape

from experiments.report.input import UNDEFENDED, ReportInput, Setting, settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, GREY, RULE = "#1b1f24", "#5d646c", "#dfe3e8"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#7A4FBF")  # Okabe and Ito, mostly
MARKERS = (("s", "■"), ("^", "▲"), ("D", "◆"), ("v", "▼"), ("P", "✚"), ("X", "✖"), ("*", "★"))
_WIDTH = 4.3  # inches; with 9 pt text this reads well from 330 pixels on


class Style(NamedTuple):
    """A setting's colour and marker in every figure; ``glyph`` is the marker in the legend's text."""

    colour: str
    marker: str
    glyph: str

    @property
    def width(self) -> float:
        """Of a line, in points: undefended is broad, so that it shows below a line that equals it."""
        return 3.0 if self.colour == INK else 1.5


class Panel(NamedTuple):
    title: str
    svg: Markup


def styles(report: ReportInput) -> dict[Setting, Style]:
    """Undefended is dark and round; the others differ in shape as well as in colour."""
    found: dict[Setting, Style] = {}
    for setting in settings(report):
        drawn = sum(style.colour != INK for style in found.values())
        if setting.defense == UNDEFENDED and drawn == len(found) == 0:
            found[setting] = Style(INK, "o", "●")
        else:  # colours repeat before the pairs of colour and marker do
            marker = MARKERS[(drawn + drawn // len(COLOURS)) % len(MARKERS)]
            found[setting] = Style(COLOURS[drawn % len(COLOURS)], *marker)
    return found


class Canvas:
    """Axes to draw on, one below the other; ``panel`` is there once the ``with`` block has ended."""

    panel: Panel

    def __init__(self, stack: Sequence["Axes"]) -> None:
        self.stack = stack

    @property
    def axes(self) -> "Axes":
        """Where there is one."""
        (axes,) = self.stack
        return axes


@contextmanager
def canvas(title: str, told: str, *, heights: Sequence[float] = (2.9,)) -> Iterator[Canvas]:
    """Empty axes in the page's look, which share their horizontal axis.

    Args:
        title: Above the panel, in the page's own type.
        told: What a reader who does not see the figure is told.
        heights: Inches, of each axes.
    """
    from matplotlib.figure import Figure

    with _look():
        figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
        ratios = {"height_ratios": list(heights)}
        drawn = Canvas(figure.subplots(len(heights), sharex=True, squeeze=False, gridspec_kw=ratios)[:, 0].tolist())
        yield drawn
        figure.align_ylabels()
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn.panel = Panel(title, _inline(buffer.getvalue(), told))


def _look() -> AbstractContextManager[None]:
    from matplotlib import rc_context

    return rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "fl-sim",
            "font.size": 9,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": GREY,
            "xtick.color": GREY,
            "ytick.color": GREY,
            "grid.color": RULE,
            "grid.linewidth": 0.7,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )


def _inline(svg: str, told: str) -> Markup:
    """Only the element, with a description; group names go, as they would repeat from panel to panel."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r' id="[a-zA-Z]\w*_\d+"', "", element)
    element = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", element, count=1)
    element = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", element, count=1)
    return Markup(element.replace("<svg", f'<svg role="img" aria-label="{escape(told)}"', 1))
