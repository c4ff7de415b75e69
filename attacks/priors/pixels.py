"""Pixels one by one: their range and their distribution, knowing nothing of their neighbours."""

import math
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from attacks.priors.base import Density, Prior, normalised
from attacks.problem import Problem
from fl_sim.core.part import part


@part
class Clip(Prior):
    """Pixels lie in [0, 1]: ``weight * mean over images of sum over pixels of (u - clip(u, 0, 1))^2``.

    A one-sided Gaussian outside the range, of variance ``1 / (2 weight)`` for one image (arXiv 2111.04706, the released
    code's "clip" prior). Averaged over the images of a batch as there, so no density of the batch.

    Args:
        weight: Of the term; ``u`` is in [0, 1] units.
    """

    weight: NonNegativeFloat

    def __call__(self, images: Tensor, problem: Problem) -> Tensor:
        del problem
        outside = images - images.clamp(0, 1)
        return self.weight * outside.square().flatten(2).sum(2).mean(1)


@part
class ImageL2(Prior):
    """Length ``||x||_2`` of the normalised image, not squared, averaged over the images of a batch.

    The l2 term of GradInversion (arXiv 2104.07586) as in its authors' code; others use the square, or its mean.

    Args:
        weight: Of the term.
    """

    weight: NonNegativeFloat

    def __call__(self, images: Tensor, problem: Problem) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm(normalised(images, problem).flatten(2), dim=2)
        return self.weight * lengths.mean(1)


@part
class GaussianPixels(Density):
    """Independent pixels, each N(mean, std^2): a density over pixels in the stated units.

    Args:
        mean: Of every pixel of every channel, in ``units``.
        std: As ``mean``.
        units: ``normalised``: ``(x - mean) / std`` of the task, per channel; ``unit``: pixels in [0, 1].
    """

    mean: float = 0.0
    std: PositiveFloat = 1.0
    units: Literal["normalised", "unit"] = "normalised"

    def log_density(self, images: Tensor, problem: Problem) -> Tensor:
        pixels = normalised(images, problem) if self.units == "normalised" else images
        white = ((pixels - self.mean) / self.std).flatten(1)
        return -white.square().sum(1) / 2 - white.shape[1] * math.log(self.std * math.sqrt(2 * math.pi))
