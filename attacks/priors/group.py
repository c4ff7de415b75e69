"""Several searches of one batch should find the same images."""

from typing import ClassVar

from pydantic import NonNegativeFloat
from torch import Tensor

from attacks.priors.base import Prior, normalised
from attacks.problem import Problem
from fl_sim.core.part import part


@part
class GroupConsistency(Prior):
    """Squared distance of each trial's normalised images to their mean over all trials, summed over the batch.

    GradInversion's group term (arXiv 2104.07586) in its lazy form: the mean is the plain one, pixel by pixel, not one
    of images registered to each other. Images are compared by their place in the batch, not matched. It couples the
    trials: 0 where a solver runs them one at a time, as L-BFGS does, or where there is only one.

    Args:
        weight: Of the term; 0.01 in GradInversion.
    """

    joins: ClassVar[bool] = False

    weight: NonNegativeFloat

    def __call__(self, images: Tensor, problem: Problem) -> Tensor:
        pixels = normalised(images, problem)
        return self.weight * (pixels - pixels.mean(0)).square().flatten(1).sum(1)
