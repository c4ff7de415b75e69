"""Neighbouring pixels are alike."""

from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.nn.functional import pad

from attacks.priors.base import Prior
from attacks.problem import Problem
from fl_sim.core.part import part


@part
class TotalVariation(Prior):
    """Total variation of the normalised image; weights in the literature belong to one of its variants.

    Args:
        weight: Of the term.
        power: 1: absolute differences (arXiv 2003.14053); 2: squared (arXiv 2111.04706).
        reduction: ``mean`` of the horizontal plus mean of the vertical differences, or their ``sum`` over one image;
            either is averaged over the images of a batch.
        periodic: Whether the last pixel is also a neighbour of the first (arXiv 2111.04706).
        isotropic: ``(dx^2 + dy^2 + smoothing)^(power / 2)`` at every pixel instead of ``|dx|^power + |dy|^power``, so
            that an edge costs the same at any angle (Rudin, Osher, Fatemi 1992). Differences across a border that is
            not periodic are 0, and ``mean`` is over all pixels.
        smoothing: Of ``isotropic``, in squared normalised units: makes it differentiable where the image is flat, which
            then costs ``smoothing^(power / 2)`` a pixel.
    """

    weight: NonNegativeFloat
    power: Literal[1, 2] = 1
    reduction: Literal["mean", "sum"] = "mean"
    periodic: bool = False
    isotropic: bool = False
    smoothing: PositiveFloat = 1e-8

    def __call__(self, images: Tensor, problem: Problem) -> Tensor:
        across, down = (self._differences(images / problem.std, dim) for dim in (-1, -2))
        if not self.isotropic:
            return self.weight * (self._reduced(across.abs() ** self.power) + self._reduced(down.abs() ** self.power))
        if not self.periodic:
            across, down = pad(across, (0, 1)), pad(down, (0, 0, 0, 1))
        length = across.square() + down.square() + self.smoothing
        return self.weight * self._reduced(length ** (self.power / 2))

    def _differences(self, images: Tensor, dim: int) -> Tensor:
        return images.roll(-1, dim) - images if self.periodic else images.diff(dim=dim)

    def _reduced(self, cost: Tensor) -> Tensor:
        """``(T, N, C, H, W)`` to ``(T,)``."""
        per_image = cost.flatten(2).mean(2) if self.reduction == "mean" else cost.flatten(2).sum(2)
        return per_image.mean(1)
