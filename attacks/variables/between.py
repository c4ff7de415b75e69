"""Search where between two weights the gradient was taken, beside the images."""

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn

from attacks.problem import Guess, Problem, gradient_scale
from attacks.variables.base import Point, Variables
from fl_sim.core.types import Observation

SHARE = "share"


@dataclass(frozen=True, kw_only=True, eq=False)
class Between(Variables):
    """Other variables, and one number a trial: ``w = a w_sent + (1 - a) w_returned``, a in [0, 1] (arXiv 2306.00127).

    Args:
        inner: What makes the images.
        first: Of a.
        pace: Of a, per unit of its variable: solvers step all variables alike, in units of normalised pixels.
    """

    inner: Variables
    first: float
    pace: float

    def check(self, seen: Observation, model: nn.Module) -> None:
        self.inner.check(seen, model)

    def start(self, problem: Problem, trials: int, rng: Generator) -> Point:
        share = torch.full((trials, 1), self.first / self.pace, device=problem.device)
        return {**self.inner.start(problem, trials, rng), SHARE: share}

    def decode(self, point: Point, problem: Problem) -> Guess:
        back = (1 - self.pace * point[SHARE]) * (gradient_scale(problem.seen) or -1.0)
        weights = {
            name: w + back.view(-1, *[1] * w.dim()) * problem.targets[name]
            for name, w in problem.seen.broadcast.items()
        }
        return self.inner.decode(_images(point), problem)._replace(weights=weights)

    def answer(self, point: Point, problem: Problem) -> Guess:
        return self.inner.answer(_images(point), problem)

    def project(self, point: Point, problem: Problem) -> Point:
        return {**self.inner.project(_images(point), problem), SHARE: point[SHARE].clamp(0, 1 / self.pace)}

    def surprise(self, point: Point, problem: Problem) -> Tensor:
        return self.inner.surprise(_images(point), problem)

    def only(self, trials: Tensor) -> "Between":
        return replace(self, inner=self.inner.only(trials))


def _images(point: Point) -> Point:
    return {name: v for name, v in point.items() if name != SHARE}
