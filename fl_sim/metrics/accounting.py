"""Privacy loss over rounds: (epsilon, delta) of Gaussian mechanisms, by Opacus' accountants."""

import math
import warnings
from functools import lru_cache
from typing import Final

DELTA: Final = 1e-5
_MOST: Final = 200.0  # epsilon


@lru_cache(maxsize=1024)
def epsilon(multiplier: float, steps: int, delta: float = DELTA, rate: float = 1.0) -> float:
    """The privacy loss of ``steps`` Gaussian mechanisms together, at ``delta``.

    Args:
        multiplier: Noise std over how far one record, or one client, can move what the noise is added to.
        steps: How often.
        rate: Chance to be in a step's Poisson sample; 1: in each, sampled or not, which is always an upper bound.

    The smaller of two upper bounds: Rényi moments (arXiv 1702.07476), and numerical composition (PRV, arXiv 2106.02848)
    where these are below 200, for its memory grows with the loss. Infinite without noise, 0 without steps.
    """
    if not steps:
        return 0.0
    if not multiplier:
        return math.inf
    from opacus.accountants import PRVAccountant, RDPAccountant  # takes seconds to import

    found = math.inf
    for accountant in (RDPAccountant(), PRVAccountant()):
        accountant.history = [(multiplier, rate, steps)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the orders of the moments it has tried
            found = min(found, float(accountant.get_epsilon(delta=delta)))
        if found > _MOST:
            break
    return found
