"""The contract of a prior."""

from abc import ABC, abstractmethod
from typing import ClassVar

from pydantic import NonNegativeFloat
from torch import Tensor, nn

from attacks.problem import Problem
from fl_sim.core.part import part
from fl_sim.core.types import Observation


class Prior(ABC):
    """Cost ``(T,)`` of images ``(T, N, C, H, W)`` in [0, 1] units, not clamped: ``-log p(x)`` up to a constant."""

    joins: ClassVar[bool] = True
    """Whether it may be given the trials of several observations at once: they do not meet in it."""

    @abstractmethod
    def __call__(self, images: Tensor, problem: Problem) -> Tensor: ...

    def check(self, seen: Observation, model: nn.Module) -> None:
        """Refuse an observation or a model that it is not for, as :meth:`fl_sim.core.contracts.Attack.check` does."""
        del seen, model


@part
class Density(Prior):
    """A prior that is a probability density: ``-log p(x)`` with its constant, in nats.

    Images of a batch are independent, so that a batch costs the sum over its images, not their mean.

    Args:
        weight: Of the term; 1 is the density itself.
    """

    weight: NonNegativeFloat = 1.0

    def __call__(self, images: Tensor, problem: Problem) -> Tensor:
        each = self.log_density(images.flatten(0, 1), problem)
        return -self.weight * each.view(images.shape[:2]).sum(1)

    @abstractmethod
    def log_density(self, images: Tensor, problem: Problem) -> Tensor:
        """``log p(x)`` ``(M,)`` of images ``(M, C, H, W)`` in [0, 1] units; the prior says over which units."""


def normalised(images: Tensor, problem: Problem) -> Tensor:
    """``(x - mean) / std`` per channel: what the model sees, and the space of most published weights."""
    return (images - problem.mean) / problem.std
