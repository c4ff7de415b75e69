"""Defenses that add noise to an update."""

import math
from dataclasses import replace

from pydantic import NonNegativeFloat
from torch import Generator, Tensor

from fl_sim.core.contracts import Defense, Protected
from fl_sim.core.errors import NoDensityError
from fl_sim.core.knowledge import Knowledge
from fl_sim.core.part import part
from fl_sim.core.trees import add_normal, flat, global_norm, size, subtract
from fl_sim.core.types import Tensors, Update


@part
class Gaussian(Defense):
    """Independent Gaussian noise on every entry of the update.

    Args:
        std: Of the noise, in the update's own units: gradient units in FedSGD, weight units in FedAvg; 0 is no defense.

    Added once to the whole update (the mean over the batch), so its std does not shrink with the batch: per-example
    noise, averaged, is another mechanism (arXiv 2111.04706 calls it dp_gaussian). Nothing is clipped, hence there is no
    (epsilon, delta).
    """

    std: NonNegativeFloat

    def protect(self, update: Update, rng: Generator) -> Protected:
        delta = add_normal(update.delta, self.std, rng)
        noise_norm = self.std * math.sqrt(size(delta))
        signal = global_norm(update.delta).item()
        stats = {"noise_std": self.std, "noise_norm": noise_norm, "signal_norm": signal}
        return Protected(replace(update, delta=delta), stats)

    def log_likelihood(self, observed: Tensors, clean: Tensors, knowledge: Knowledge) -> Tensor:
        """``-|g - clean|^2 / (2 std^2) - (k/2) log(2 pi std^2)``; arXiv 2111.04706."""
        del knowledge
        if self.std == 0:
            raise NoDensityError("noise of std 0 has no density", surrogate="l2")
        residual = flat(subtract(observed, clean))
        constant = 0.5 * residual.numel() * math.log(2 * math.pi * self.std**2)
        return -residual.square().sum().double() / (2 * self.std**2) - constant
