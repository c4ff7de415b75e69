"""The contract of search variables."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TypeAlias

from torch import Generator, Tensor, nn

from attacks.problem import Guess, Problem
from fl_sim.core.types import Observation

Point: TypeAlias = Mapping[str, Tensor]
"""Named variables, each with a leading trial dimension ``T``."""


class Variables(ABC):
    """A space to search: pixels, a latent, features, weights; and how a point in it is read as images."""

    def check(self, seen: Observation, model: nn.Module) -> None:
        """Refuse what it cannot search, as :meth:`fl_sim.core.contracts.Attack.check` does."""
        del seen, model

    @abstractmethod
    def start(self, problem: Problem, trials: int, rng: Generator) -> Point:
        """``trials`` first points, all different where the start is random."""

    @abstractmethod
    def decode(self, point: Point, problem: Problem) -> Guess:
        """Differentiable in ``point``."""

    @abstractmethod
    def project(self, point: Point, problem: Problem) -> Point:
        """The nearest allowed point; what a solver calls after each step."""
