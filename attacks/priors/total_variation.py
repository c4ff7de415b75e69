"""Neighbouring pixels are alike."""

from typing import Literal

from pydantic import NonNegativeFloat
from torch import Tensor

from attacks.priors.base import Prior
from attacks.problem import Problem
from fl_sim.core.part import part


@part
class TotalVariation(Prior):
    """Anisotropic total variation of the normalised image; weights in the literature belong to one of its variants.

    Args:
        weight: Of the term.
        power: 1: absolute differences (arXiv 2003.14053); 2: squared (arXiv 2111.04706).
        reduction: ``mean`` of the horizontal plus mean of the vertical differences, or their ``sum`` over one image;
            either is averaged over the images of a batch.
        periodic: Whether the last pixel is also a neighbour of the first (arXiv 2111.04706).
    """

    weight: NonNegativeFloat
    power: Literal[1, 2] = 1
    reduction: Literal["mean", "sum"] = "mean"
    periodic: bool = False

    def __call__(self, images: Tensor, problem: Problem) -> Tensor:
        normalised = images / problem.std
        return self.weight * (self._along(normalised, -1) + self._along(normalised, -2))

    def _along(self, images: Tensor, dim: int) -> Tensor:
        difference = images.roll(1, dim) - images if self.periodic else images.diff(dim=dim)
        cost = difference.abs() if self.power == 1 else difference.square()
        per_image = cost.flatten(2).mean(2) if self.reduction == "mean" else cost.flatten(2).sum(2)
        return per_image.mean(1)
