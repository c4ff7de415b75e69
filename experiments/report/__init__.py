"""Records to one self-contained page: leakage beside what it cost, worded as measurements."""

from experiments.report.comparison import render_comparison, summarise_comparison
from experiments.report.input import Picture, ReportInput
from experiments.report.markdown import markdown
from experiments.report.page import render
from experiments.report.summary import summary
from experiments.report.table import summarise

__all__ = [
    "Picture",
    "ReportInput",
    "markdown",
    "render",
    "render_comparison",
    "summarise",
    "summarise_comparison",
    "summary",
]
