"""The contract of a likelihood."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from attacks.problem import Problem


@dataclass(frozen=True, slots=True)
class Misfit:
    """A likelihood, prepared for one problem.

    Args:
        cost: Of guessed gradients, one number a trial, ``(T,)``, or one for all of them; differentiable.
        of: The gradients it wants: the batch's ``mean``, each tensor ``(T, *shape)``, or as ``products`` where they are
            cheaper unmultiplied; those of single ``examples``, ``(T, N, *shape)``; or ``nothing``, an empty tree.
    """

    cost: Callable[[Any], Tensor]
    of: Literal["mean", "products", "examples", "nothing"] = "mean"


class Likelihood(ABC):
    """Compares guessed gradients with the observed update."""

    needs_scale: ClassVar[bool] = False
    """Whether it is meaningless when only the direction of the gradient is known."""

    joins: ClassVar[bool] = False
    """Whether it can be bound to joined problems, of several observations: each trial has its own target then."""

    @abstractmethod
    def bind(self, problem: Problem) -> Misfit:
        """Everything that depends on the observation alone is computed here, once."""
