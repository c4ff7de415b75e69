"""Records to one self-contained page: leakage beside what it cost, worded as measurements."""

from experiments.report.input import Picture, ReportInput
from experiments.report.markdown import markdown
from experiments.report.page import render
from experiments.report.table import summarise

__all__ = ["Picture", "ReportInput", "markdown", "render", "summarise"]
