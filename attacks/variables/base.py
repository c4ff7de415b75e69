"""The contract of search variables."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TypeAlias

import torch
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

    def answer(self, point: Point, problem: Problem) -> Guess:
        """What is believed in the end, where a guess is more than the N images of the batch."""
        return self.decode(point, problem)

    @abstractmethod
    def project(self, point: Point, problem: Problem) -> Point:
        """The nearest allowed point; where a solver is after each step."""

    def surprise(self, point: Point, problem: Problem) -> Tensor:
        """``-log p(v)`` of the variables themselves up to a constant, ``(T,)``; differentiable."""
        del problem
        return torch.zeros_like(next(iter(point.values())).flatten(1)[:, 0])

    def only(self, trials: Tensor) -> "Variables":
        """Of some of the trials, by place, where it holds something of each."""
        del trials
        return self
