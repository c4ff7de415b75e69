"""Gradient descent with Adam."""

from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from attacks.solvers.base import Best, Clock, Objective, Project, Solution, Solver
from attacks.variables.base import Point
from fl_sim.core.part import part
from fl_sim.core.types import Outcome

_LOOK_EVERY = 25  # steps between two looks at the score; each waits for the device


@part
class Adam(Solver):
    """Adam (arXiv 1412.6980) on all trials at once, projected after each step.

    The best point of the last eighth of the steps is kept: early in a search that ends in a poor minimum, a point may
    score better than the end and be a worse picture (experiments/LOG.md). A search cut short keeps the best it had.

    Args:
        steps: Most steps to take.
        step_size: Of Adam, in units of the variables.
        signed: Feed Adam the sign of the gradient (arXiv 2003.14053).
        schedule: ``steps``: a tenth of the step size after 3/8, 5/8 and 7/8 of the steps; ``exponential``: ``decay``
            per step; ``constant``.
        decay: See ``schedule``.
        tolerance: Stop, converged, once the best score of every trial is below this.
        seconds: Stop after this time; ``None``: only ``steps`` counts.
    """

    steps: PositiveInt
    step_size: PositiveFloat = 0.1
    signed: bool = False
    schedule: Literal["constant", "steps", "exponential"] = "constant"
    decay: PositiveFloat = 0.94
    tolerance: float = -torch.inf
    seconds: PositiveFloat | None = None

    def solve(self, objective: Objective, start: Point, project: Project) -> Solution:
        point = {name: v.detach().clone().requires_grad_() for name, v in start.items()}
        adam = torch.optim.Adam(point.values(), lr=self.step_size)
        best = early = Best(point)
        clock, settled, step = Clock(self.seconds), -(-7 * self.steps // 8), 0
        for step in range(self.steps):
            if step == settled:
                early, best = best, Best(point)
            cost = objective(point, step / self.steps)
            best.offer(point, cost.score)
            self._descend(adam, point, cost.descended, self.rate(step))
            self._write(point, project(point))
            if step % _LOOK_EVERY == _LOOK_EVERY - 1 and (stop := self._stop(best, clock)):
                return _either(best, early).solution(stop, step + 1)
            if clock.over():
                return _either(best, early).solution(Outcome.OUT_OF_TIME, step + 1)
        best.offer(point, objective(point, 1.0).score)
        return _either(best, early).solution(self._stop(best, clock) or Outcome.OUT_OF_STEPS, step + 1)

    def _descend(self, adam: torch.optim.Adam, point: Point, cost: Tensor, rate: float) -> None:
        variables = list(point.values())
        gradients = torch.autograd.grad(cost.sum(), variables, materialize_grads=True)
        for variable, gradient in zip(variables, gradients, strict=True):
            finite = gradient.nan_to_num(0.0, 0.0, 0.0)
            variable.grad = finite.sign() if self.signed else finite
        adam.param_groups[0]["lr"] = rate
        adam.step()

    def rate(self, step: int) -> float:
        """The step size at a step, from 0."""
        if self.schedule == "exponential":
            return float(self.step_size * self.decay**step)
        passed = sum(8 * step >= eighths * self.steps for eighths in (3, 5, 7))
        return self.step_size * (0.1**passed if self.schedule == "steps" else 1.0)

    def _stop(self, best: Best, clock: Clock) -> Outcome | None:
        if bool((best.score < self.tolerance).all()):
            return Outcome.CONVERGED
        return Outcome.OUT_OF_TIME if clock.over() else None

    @staticmethod
    def _write(point: Point, projected: Point) -> None:
        with torch.no_grad():
            for name, variable in point.items():
                variable.copy_(projected[name])


def _either(late: Best, early: Best) -> Best:
    """``late``, unless nothing in it is a number."""
    return late if late.score.isfinite().any() else early
