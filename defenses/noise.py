"""Defenses that add noise to an update."""

import math
from dataclasses import replace
from typing import Annotated, Literal, Self

import torch
from pydantic import NonNegativeFloat
from torch import Generator, Tensor

from fl_sim.core.contracts import Defense, Protected
from fl_sim.core.density import Choice, LaplaceNoise, Noise, Normal
from fl_sim.core.part import Unit, part
from fl_sim.core.trees import add_normal, flat, global_norm, size
from fl_sim.core.types import Tensors, Update


@part
class Gaussian(Defense):
    """Independent Gaussian noise on every entry of the update.

    Args:
        std: Of the noise, in the update's own units: gradient units in FedSGD, weight units in FedAvg; 0 is no defense.
        averaging: ``central``: drawn once for the whole update, whatever its batch. ``per_example``: each example's
            gradient gets noise of ``std`` and then they are averaged, so the update's noise has ``std / sqrt(N)``
            (dp_gaussian of arXiv 2111.04706, FedSGD).

    Nothing is clipped, hence there is no (epsilon, delta).
    """

    std: Annotated[NonNegativeFloat, Unit("update units")]
    averaging: Literal["central", "per_example"] = "central"

    def protect(self, update: Update, rng: Generator) -> Protected:
        std = self._std(update.num_examples)
        delta = add_normal(update.delta, std, rng)
        return Protected(replace(update, delta=delta), noise_stats(update, std))

    @classmethod
    def inferred(cls, received: Update, noise: float) -> Self:
        """The noise of the small entries, drawn for the whole update: too large where few are near zero before it."""
        return cls(std=_less(Normal.behind(flat(received.delta)).std, noise))

    def noise(self, num_examples: int) -> Noise | None:
        return Normal(self._std(num_examples)) if self.std else None

    def choices(self, clean: Tensors, drawn: Tensors) -> tuple[Choice, ...]:
        return super().choices(clean, drawn) if self.std else (Choice(1.0, clean),)

    def _std(self, num_examples: int) -> float:
        return self.std / math.sqrt(num_examples if self.averaging == "per_example" else 1)


@part
class Laplace(Defense):
    """Independent Laplace noise on every entry of the update, drawn once for the whole update.

    Args:
        scale: The law's ``b``, in the update's own units; its standard deviation is ``b sqrt(2)``; 0 is no defense.

    Averaged per-example Laplace noise is not Laplace and is not offered (arXiv 2111.04706 has it for one image only).
    """

    scale: Annotated[NonNegativeFloat, Unit("update units, std over sqrt 2")]

    def protect(self, update: Update, rng: Generator) -> Protected:
        delta = {name: t + self.scale * _unit_laplace(t, rng) for name, t in update.delta.items()}
        return Protected(replace(update, delta=delta), noise_stats(update, LaplaceNoise(self.scale).std))

    @classmethod
    def inferred(cls, received: Update, noise: float) -> Self:
        """As of Gaussian noise."""
        return cls(scale=_less(LaplaceNoise.behind(flat(received.delta)).scale, noise / math.sqrt(2)))

    def noise(self, num_examples: int) -> Noise | None:
        del num_examples
        return LaplaceNoise(self.scale) if self.scale else None

    def choices(self, clean: Tensors, drawn: Tensors) -> tuple[Choice, ...]:
        return super().choices(clean, drawn) if self.scale else (Choice(1.0, clean),)


def _less(scale: float, later: float) -> float:
    """What is left of a scale without later noise; variances add."""
    return math.sqrt(max(0.0, scale**2 - later**2))


def _unit_laplace(like: Tensor, rng: Generator) -> Tensor:
    """The difference of two exponentials, drawn on the CPU: the same on every device."""
    first, second = (torch.empty(like.shape, dtype=like.dtype).exponential_(generator=rng) for _ in range(2))
    return (first - second).to(like.device)


def noise_stats(update: Update, std: float) -> dict[str, float]:
    """How loud the noise is beside the signal; norms over the whole update."""
    noise_norm = std * math.sqrt(size(update.delta))
    return {"noise_std": std, "noise_norm": noise_norm, "signal_norm": global_norm(update.delta).item()}
