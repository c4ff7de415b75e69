"""Attacks that need no search through images: what was trained on can be read off the first layer's gradient."""

from attacks.analytic.rank import rank
from attacks.analytic.ratio import ratio

__all__ = ["rank", "ratio"]
