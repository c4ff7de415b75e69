"""Gradients of a guess: the step that every gradient-matching attack repeats."""

from attacks.gradients.batched import Batched
from attacks.gradients.choice import fastest
from attacks.gradients.factors import Factors, Tree, dense, of_trials, products
from attacks.gradients.looped import Looped
from attacks.gradients.passes import Guess, Passes

__all__ = [
    "Batched",
    "Factors",
    "Guess",
    "Looped",
    "Passes",
    "Tree",
    "dense",
    "fastest",
    "of_trials",
    "products",
]
