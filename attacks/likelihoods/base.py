"""The contract of a likelihood."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from attacks.problem import Problem
from fl_sim.core.types import Tensors


@dataclass(frozen=True, slots=True)
class Misfit:
    """A likelihood, prepared for one problem.

    Args:
        cost: Of guessed gradients, one number a trial, ``(T,)``, or one for all of them; differentiable.
        of: The gradients it wants: the batch's ``mean``, each tensor ``(T, *shape)``; those of single ``examples``,
            ``(T, N, *shape)``; or ``nothing`` at all, an empty tree.
    """

    cost: Callable[[Tensors], Tensor]
    of: Literal["mean", "examples", "nothing"] = "mean"


class Likelihood(ABC):
    """Compares guessed gradients with the observed update."""

    needs_scale: ClassVar[bool] = False
    """Whether it is meaningless when only the direction of the gradient is known."""

    @abstractmethod
    def bind(self, problem: Problem) -> Misfit:
        """Everything that depends on the observation alone is computed here, once."""
