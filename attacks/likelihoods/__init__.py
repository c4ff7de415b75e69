"""How well a guess's gradient explains what was observed: the first term of every attack.

Each is a cost per trial, lower is better: ``-log p(observed | guess)`` up to constants, or a distance that stands in
for it (arXiv 2111.04706, table 1).
"""

from attacks.likelihoods.base import Likelihood, Misfit
from attacks.likelihoods.density import DefenseDensity, informs
from attacks.likelihoods.distances import L1, L2, Cosine, Layers, Nothing, Support
from attacks.likelihoods.features import Features

__all__ = [
    "L1",
    "L2",
    "Cosine",
    "DefenseDensity",
    "Features",
    "Layers",
    "Likelihood",
    "Misfit",
    "Nothing",
    "Support",
    "informs",
]
