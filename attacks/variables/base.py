"""The contract of search variables."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from torch import Generator, Tensor

from attacks.problem import Problem

Point: TypeAlias = Mapping[str, Tensor]
"""Named variables, each with a leading trial dimension ``T``."""


class Guess(NamedTuple):
    """What a point stands for: images ``(T, N, C, H, W)`` in [0, 1] units (not clamped), labels ``(T, N[, K])``."""

    images: Tensor
    labels: Tensor


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
