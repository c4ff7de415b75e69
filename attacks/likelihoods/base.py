"""The contract of a likelihood."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from attacks.problem import Guess, Problem, gradient_scale
from fl_sim.core.errors import UnmetKnowledgeError
from fl_sim.core.types import Observation, Tensors


@dataclass(frozen=True, slots=True)
class Misfit:
    """A likelihood, prepared for one problem.

    Args:
        cost: Of guessed gradients, one number a trial, ``(T,)``, or one for all of them; differentiable.
        of: The gradients it wants: the batch's ``mean``, each tensor ``(T, *shape)``, or as ``products`` where they are
            cheaper unmultiplied; those of single ``examples``, ``(T, N, *shape)``; or ``nothing``, an empty tree. Or a
            function that computes something else of a guess, by name, each with the trials first.
    """

    cost: Callable[[Any], Tensor]
    of: Literal["mean", "products", "examples", "nothing"] | Callable[[Problem, Guess], Tensors] = "mean"


class Likelihood(ABC):
    """Compares what a guess would have made, its gradient as a rule, with the observed update."""

    needs_scale: ClassVar[bool] = False
    """Whether it is meaningless when only the direction of the gradient is known."""

    joins: ClassVar[bool] = False
    """Whether it can be bound to joined problems, of several observations: each trial has its own target then."""

    def check(self, seen: Observation, model: nn.Module) -> None:
        """Refuse what it cannot compare, as :meth:`fl_sim.core.contracts.Attack.check` does."""
        del model
        if self.needs_scale and gradient_scale(seen) is None:
            raise UnmetKnowledgeError(
                f"{type(self).__name__} compares gradients with their scale, and that of a weight change is unknown "
                "without the protocol: grant protocol in [adversary], or use a cosine attack"
            )

    @abstractmethod
    def bind(self, problem: Problem) -> Misfit:
        """Everything that depends on the observation alone is computed here, once."""
