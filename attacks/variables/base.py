"""The contract of search variables."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TypeAlias

from torch import Generator, Tensor

from attacks.problem import Guess, Problem

Point: TypeAlias = Mapping[str, Tensor]
"""Named variables, each with a leading trial dimension ``T``."""


class Variables(ABC):
    """A space to search: pixels, a latent, features, weights; and how a point in it is read as images."""

    @abstractmethod
    def start(self, problem: Problem, trials: int, rng: Generator) -> Point:
        """``trials`` first points, all different where the start is random."""

    @abstractmethod
    def decode(self, point: Point, problem: Problem) -> Guess:
        """Differentiable in ``point``."""

    @abstractmethod
    def project(self, point: Point, problem: Problem) -> Point:
        """The nearest allowed point; what a solver calls after each step."""
