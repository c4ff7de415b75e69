"""Privacy loss over rounds: (epsilon, delta) of Gaussian mechanisms."""

import math
import warnings
from functools import lru_cache
from typing import Final

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

DELTA: Final = 1e-5
_MOST: Final = 1e12  # epsilon, beyond which it is infinite
_HEAVY: Final = 200.0  # epsilon, beyond which PRV's memory explodes


@lru_cache(maxsize=1024)
def epsilon(multiplier: float, steps: int, delta: float = DELTA, rate: float = 1.0) -> float:
    """The privacy loss of ``steps`` Gaussian mechanisms together, at ``delta``.

    Args:
        multiplier: Noise std over how far one record, or one client, can move what the noise is added to.
        steps: How often.
        rate: Chance to be in a step's Poisson sample; 1: in each, sampled or not, which is always an upper bound.

    Exact at rate 1 (arXiv 1905.02383, corollary 2.13). Below it the least of three upper bounds: that, and Opacus'
    moments (arXiv 1702.07476) and numerical composition (PRV, arXiv 2106.02848). Infinite without noise, 0 without
    steps.
    """
    if not steps:
        return 0.0
    if not multiplier:
        return math.inf
    whole = _unsampled(math.sqrt(steps) / multiplier, delta)
    return whole if rate == 1 else min(whole, _sampled(multiplier, steps, delta, rate))


def _unsampled(mu: float, delta: float) -> float:
    """Of a Gaussian mechanism with sensitivity ``mu`` and unit noise."""

    def over(value: float) -> float:
        return float(ndtr(mu / 2 - value / mu) - np.exp(value + log_ndtr(-mu / 2 - value / mu)) - delta)

    if over(0.0) <= 0:
        return 0.0
    most = mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta))  # by moments: never less
    return float(brentq(over, 0.0, most, xtol=1e-9)) if most < _MOST else math.inf


def _sampled(multiplier: float, steps: int, delta: float, rate: float) -> float:
    from opacus.accountants import PRVAccountant, RDPAccountant  # takes seconds to import

    found = math.inf
    for accountant in (RDPAccountant(), PRVAccountant()):
        accountant.history = [(multiplier, rate, steps)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the orders of the moments it has tried
            found = min(found, float(accountant.get_epsilon(delta=delta)))
        if found > _HEAVY:
            break
    return found
