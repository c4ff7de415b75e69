"""The contract of a solver, and the best-so-far that all of them keep."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from attacks.variables.base import Point
from fl_sim.core.types import Outcome, Tensors

COPIES = 5  # of a trial's point, in any search by slopes: the point, the two best, two moments


class Cost(NamedTuple):
    """Of each trial, ``(T,)``: what this step descends, and what points are compared by.

    They differ where the objective changes along the way (an annealed likelihood); the second never does.
    """

    descended: Tensor
    score: Tensor


Objective: TypeAlias = Callable[[Point, float], Cost]
"""Cost of a point at a progress in [0, 1] of the search."""


class Objectives(Protocol):
    """The objectives of several observations at once, whose trials follow one another."""

    def __call__(self, point: Point, progress: float) -> Cost: ...

    def slope(self, point: Point, progress: float) -> tuple[Cost, Tensors]:
        """The cost, and the derivative of what is descended in each variable."""

    def project(self, point: Point) -> Point:
        """The nearest allowed point; where solvers are after each step."""

    def only(self, kept: Sequence[int]) -> "Objectives":
        """Those of some of the observations, by place, ascending."""


Project: TypeAlias = Callable[[Point], Point]


@dataclass(frozen=True, kw_only=True)
class Solution:
    """The best point over all trials (its trial dimension kept, of size 1), chosen by its own score."""

    point: Point
    score: float
    outcome: Outcome
    iterations: int


def slope(objective: Objective, point: Point, progress: float) -> tuple[Cost, dict[str, Tensor]]:
    """As :meth:`Objectives.slope`, by differentiating."""
    cost = objective(point, progress)
    gradients = torch.autograd.grad(cost.descended.sum(), list(point.values()), materialize_grads=True)
    return cost, dict(zip(point, gradients, strict=True))


class Solver(ABC):
    """Minimises objectives from several starts at once."""

    steps: int
    """Most that it takes."""

    seconds: float | None = None
    """Most that it takes for each observation."""

    trials: int = 1
    """That it needs of each observation at least: the population of an evolution strategy."""

    @property
    def leaves(self) -> bool:
        """Whether a trial can be done before the others are."""
        return False

    @property
    def copies(self) -> int:
        """Of each trial's point, that the search remembers."""
        return COPIES

    def solve(self, objective: Objective, start: Point, project: Project) -> Solution:
        return self.solve_all(One(objective, project), start, 1)[0]

    @abstractmethod
    def solve_all(self, objectives: Objectives, start: Point, many: int) -> list[Solution]:
        """What :meth:`solve` gives for each of ``many`` observations with equally many trials, rounding apart."""


class One:
    """One observation's objective, as those of several."""

    def __init__(self, objective: Objective, project: Project) -> None:
        self._objective, self._project = objective, project

    def __call__(self, point: Point, progress: float) -> Cost:
        return self._objective(point, progress)

    def slope(self, point: Point, progress: float) -> tuple[Cost, Tensors]:
        return slope(self._objective, point, progress)

    def project(self, point: Point) -> Point:
        return self._project(point)

    def only(self, kept: Sequence[int]) -> "One":
        del kept
        return self


class Clock:
    """A time budget; ``None`` never ends."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def over(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end


def chosen(point: Point, trials: slice | Tensor) -> dict[str, Tensor]:
    """Some of a point's trials."""
    return {name: v[trials] for name, v in point.items()}


def stacked(point: Point) -> Tensor:
    """All variables of a trial in a row, ``(T, d)``."""
    return torch.cat([v.detach().flatten(1) for v in point.values()], 1)


def unstacked(rows: Tensor, like: Point) -> dict[str, Tensor]:
    """Back from :func:`stacked`, as the variables of ``like``."""
    parts = torch.split(rows, [v[0].numel() for v in like.values()], 1)
    return {name: part.view_as(v) for (name, v), part in zip(like.items(), parts, strict=True)}


class Best:
    """Each trial's best point so far by score, kept on the device: nothing here waits for it."""

    def __init__(self, start: Point) -> None:
        self.point: Point = {name: v.detach().clone() for name, v in start.items()}
        first = next(iter(start.values()))
        self.score = torch.full((len(first),), torch.inf, device=first.device, dtype=torch.float64)

    def offer(self, point: Point, score: Tensor) -> None:
        """Keep what is better; NaN never is."""
        better = score.detach() < self.score
        self.score = torch.where(better, score.detach().double(), self.score)
        self.point = {
            name: torch.where(better.view(-1, *[1] * (v.dim() - 1)), v.detach(), self.point[name])
            for name, v in point.items()
        }

    def only(self, trials: slice | Tensor) -> "Best":
        """Some of the trials."""
        kept = Best(chosen(self.point, trials))
        kept.score = self.score[trials]
        return kept

    def first(self) -> int:
        """The trial with the best score."""
        return int(self.score.argmin())

    def solution(self, outcome: Outcome, iterations: int) -> Solution:
        trial = self.first()
        score = float(self.score[trial])
        return Solution(
            point=chosen(self.point, slice(trial, trial + 1)),
            score=score,
            outcome=outcome if torch.isfinite(self.score[trial]) else Outcome.NON_FINITE,
            iterations=iterations,
        )
