"""Privacy loss over rounds: (epsilon, delta) of Gaussian mechanisms."""

import math
from functools import lru_cache
from typing import Final

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

DELTA: Final = 1e-5
_MOST: Final = 1e12  # epsilon, beyond which it is infinite


@lru_cache(maxsize=1024)
def epsilon(multiplier: float, steps: int, delta: float = DELTA) -> float:
    """The privacy loss of ``steps`` Gaussian mechanisms together, at ``delta``; exact (arXiv 1905.02383, 2.13).

    Args:
        multiplier: Noise std over how far one record, or one client, can move what the noise is added to.
        steps: How often. Nothing is gained from sampling: a record counts as if it were in each.

    Infinite without noise, 0 without steps.
    """
    if not steps:
        return 0.0
    if not multiplier:
        return math.inf
    mu = math.sqrt(steps) / multiplier

    def over(value: float) -> float:
        """The delta that goes with an epsilon, minus the wanted one."""
        return float(ndtr(mu / 2 - value / mu) - np.exp(value + log_ndtr(-mu / 2 - value / mu)) - delta)

    if over(0.0) <= 0:
        return 0.0
    most = mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta))  # Renyi moments, arXiv 1702.07476: never less
    return float(brentq(over, 0.0, most, xtol=1e-9)) if most < _MOST else math.inf
