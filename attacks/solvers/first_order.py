"""Gradient descent with Adam."""

from math import cos, pi
from typing import Literal, TypeAlias

import torch
from pydantic import PositiveFloat, PositiveInt

from attacks.solvers.base import Clock, Objectives, Solution, Solver
from attacks.solvers.walk import LOOK_EVERY, Walk
from attacks.variables.base import Point
from fl_sim.core.part import part
from fl_sim.core.types import Outcome, Tensors

Schedule: TypeAlias = Literal["constant", "steps", "exponential", "ramp"]
"""Of Adam's step size; :class:`Adam` says what each is."""

_FIRST, _SECOND = "first", "second"  # moments
_UP, _DOWN = 0.05, 0.75  # shares of the steps, of the ramp
_FORGET, _FORGET_SQUARES, _FLOOR = 0.9, 0.999, 1e-8  # Adam's own


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
            per step; ``ramp``: up from 0 over the first twentieth, down to 0 along a cosine over the last three
            quarters (arXiv 1912.04958's projector); ``constant``.
        decay: See ``schedule``.
        tolerance: Stop, converged, once the best score of every trial is below this; of several observations, each
            leaves the search when it has, and each trial where trials are not compared with one another.
        seconds: Stop after this time, for each observation; ``None``: only ``steps`` counts.
    """

    steps: PositiveInt
    step_size: PositiveFloat = 0.1
    signed: bool = False
    schedule: Schedule = "constant"
    decay: PositiveFloat = 0.94
    tolerance: float = -torch.inf
    seconds: PositiveFloat | None = None

    @property
    def leaves(self) -> bool:
        return self.tolerance > -torch.inf

    def solve_all(self, objectives: Objectives, start: Point, many: int) -> list[Solution]:
        walk, clock = Walk(objectives, start, many), Clock(None if self.seconds is None else many * self.seconds)
        walk.memory = {name: {k: torch.zeros_like(v) for k, v in start.items()} for name in (_FIRST, _SECOND)}
        for step in range(self.steps):
            if step == -(-7 * self.steps // 8):
                walk.settle()
            walk.go(walk.project(self._moved(walk, self._direction(walk.slope(step / self.steps)[1]), step)))
            if self.leaves and step % LOOK_EVERY == LOOK_EVERY - 1:
                self._leave(walk, step + 1)
            if clock.over() or not walk.left:
                return walk.ended(lambda _: Outcome.OUT_OF_TIME, step + 1)
        walk.look()
        self._leave(walk, self.steps)
        return walk.ended(lambda _: Outcome.OUT_OF_STEPS, self.steps)

    def rate(self, step: int) -> float:
        """The step size at a step, from 0."""
        if self.schedule == "exponential":
            return float(self.step_size * self.decay**step)
        if self.schedule == "ramp":
            done = step / self.steps
            return self.step_size * min(1, done / _UP) * (1 - cos(pi * min(1, (1 - done) / _DOWN))) / 2
        passed = sum(8 * step >= eighths * self.steps for eighths in (3, 5, 7))
        return self.step_size * (0.1**passed if self.schedule == "steps" else 1.0)

    def _leave(self, walk: Walk, steps: int) -> None:
        walk.leave(walk.best.score < self.tolerance, lambda _: Outcome.CONVERGED, steps)

    def _direction(self, slope: Tensors) -> Tensors:
        finite = {name: gradient.nan_to_num(0.0, 0.0, 0.0) for name, gradient in slope.items()}
        return {name: gradient.sign() for name, gradient in finite.items()} if self.signed else finite

    @torch.no_grad()
    def _moved(self, walk: Walk, direction: Tensors, step: int) -> Point:
        """Where step ``step``, from 0, leads; its moments are updated in place."""
        shrink, unbias = self.rate(step) / (1 - _FORGET ** (step + 1)), (1 - _FORGET_SQUARES ** (step + 1)) ** 0.5
        moved = {}
        for name, gradient in direction.items():
            first, second = walk.memory[_FIRST][name], walk.memory[_SECOND][name]
            first.lerp_(gradient, 1 - _FORGET)
            second.mul_(_FORGET_SQUARES).addcmul_(gradient, gradient, value=1 - _FORGET_SQUARES)
            moved[name] = walk.point[name].addcdiv(first, (second.sqrt() / unbias).add_(_FLOOR), value=-shrink)
        return moved
