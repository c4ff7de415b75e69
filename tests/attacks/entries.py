"""Stacks of defenses on a small tree, and densities written out entry by entry."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats

from attacks.likelihoods import DefenseDensity
from fl_sim.core.contracts import AnyDefense, Defense
from fl_sim.core.seeds import derive
from fl_sim.core.types import Tensors, Update
from tests.attacks.problems import NOTHING, cost, made_up

SHAPES = {"w": (6, 5), "v": (7,), "b": (4,)}
TRIALS = 2
STD, SUPPOSED = 0.1, 0.05
NOISE: Any = stats.norm(scale=STD)
Entry = tuple[str, float, float]  # its tensor, what was observed, what is guessed
Formula = Callable[[str, float, float], float]


def tree(*place: int | str, trials: int | None = None) -> Tensors:
    """Tensors of different size and loudness."""
    lead = () if trials is None else (trials,)
    drawn = {k: torch.randn((*lead, *s), generator=derive(3, k, *place)).double() for k, s in SHAPES.items()}
    return {k: 0.1 * (i + 1) * t for i, (k, t) in enumerate(drawn.items())}


def sent(*defenses: Defense) -> tuple[Tensors, Tensors]:
    """What became of a tree, and all that was drawn."""
    update, drawn = Update(delta=tree("truth"), num_examples=1), dict[str, torch.Tensor]()
    for place, defense in enumerate(defenses):
        protected = defense.protect(update, derive(0, place))
        update = protected.update
        drawn |= {f"{place}/{k}": t for k, t in protected.randomness.items()}
    return update.delta, drawn


def found(
    defenses: Sequence[AnyDefense], observed: Tensors, clean: Tensors, drawn: Tensors = NOTHING, images: int = 1
) -> list[float]:
    """``log p`` of each trial."""
    problem = made_up(observed, *defenses, drawn=drawn, images=images)
    return [-value for value in cost(DefenseDensity(std=SUPPOSED), clean, problem).tolist()]


def entries(observed: Tensors, clean: Tensors, trial: int) -> Iterator[Entry]:
    for name, tensor in observed.items():
        for place in np.ndindex(*tensor.shape):
            yield name, tensor[place].item(), clean[name][trial][place].item()


def summed(observed: Tensors, clean: Tensors, formula: Formula) -> list[float]:
    return [math.fsum(formula(*entry) for entry in entries(observed, clean, t)) for t in range(TRIALS)]


def cell(low: float, high: float, value: float, of: Any = NOISE) -> float:
    return float(np.log(of.cdf(high - value) - of.cdf(low - value)))
