"""Attacks that need no search through images: what was trained on can be read off the gradient."""

from attacks.analytic.r_gap import r_gap
from attacks.analytic.rank import rank
from attacks.analytic.ratio import ratio

__all__ = ["r_gap", "rank", "ratio"]
