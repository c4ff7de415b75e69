"""Gradient descent with Adam."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt

from attacks.solvers.base import BatchSolver, Best, Clock, Cost, Objective, Objectives, Project, Solution, chosen, slope
from attacks.variables.base import Point
from fl_sim.core.part import part
from fl_sim.core.types import Outcome, Tensors

_LOOK_EVERY = 25  # steps between two looks at the score; each waits for the device
_FORGET, _FORGET_SQUARES, _FLOOR = 0.9, 0.999, 1e-8  # Adam's own


@part
class Adam(BatchSolver):
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
        tolerance: Stop, converged, once the best score of every trial is below this; of several observations, each
            leaves the search when it has.
        seconds: Stop after this time, for each observation; ``None``: only ``steps`` counts.
    """

    steps: PositiveInt
    step_size: PositiveFloat = 0.1
    signed: bool = False
    schedule: Literal["constant", "steps", "exponential"] = "constant"
    decay: PositiveFloat = 0.94
    tolerance: float = -torch.inf
    seconds: PositiveFloat | None = None

    def solve(self, objective: Objective, start: Point, project: Project) -> Solution:
        return self.solve_all(_One(objective), start, project, 1)[0]

    def solve_all(self, objectives: Objectives, start: Point, project: Project, many: int) -> list[Solution]:
        walk, clock = _Walk(objectives, start, many), Clock(None if self.seconds is None else many * self.seconds)
        for step in range(self.steps):
            if step == -(-7 * self.steps // 8):
                walk.settle()
            walk.move(self._direction(walk.slope(step / self.steps)), self.rate(step), step + 1, project)
            if step % _LOOK_EVERY == _LOOK_EVERY - 1:
                walk.leave(self.tolerance, step + 1)
            if clock.over() or not walk.left:
                return walk.ended(Outcome.OUT_OF_TIME, step + 1)
        walk.look()
        walk.leave(self.tolerance, self.steps)
        return walk.ended(Outcome.OUT_OF_STEPS, self.steps)

    def rate(self, step: int) -> float:
        """The step size at a step, from 0."""
        if self.schedule == "exponential":
            return float(self.step_size * self.decay**step)
        passed = sum(8 * step >= eighths * self.steps for eighths in (3, 5, 7))
        return self.step_size * (0.1**passed if self.schedule == "steps" else 1.0)

    def _direction(self, slope: Tensors) -> Tensors:
        finite = {name: gradient.nan_to_num(0.0, 0.0, 0.0) for name, gradient in slope.items()}
        return {name: gradient.sign() for name, gradient in finite.items()} if self.signed else finite


class _Walk:
    """Where a search of several observations stands: the trials that are left, Adam's moments, the best so far."""

    def __init__(self, objectives: Objectives, start: Point, many: int) -> None:
        self.point = {name: v.detach().clone().requires_grad_() for name, v in start.items()}
        self.left = list(range(many))  # observations
        self._objectives, self._trials = objectives, len(next(iter(start.values()))) // many
        self._first = {name: torch.zeros_like(v, requires_grad=False) for name, v in self.point.items()}
        self._second = {name: torch.zeros_like(v, requires_grad=False) for name, v in self.point.items()}
        self._best = self._early = Best(self.point)
        self._found: dict[int, Solution] = {}

    def settle(self) -> None:
        """Gather the best anew."""
        self._early, self._best = self._best, Best(self.point)

    def slope(self, progress: float) -> Tensors:
        cost, slope = self._objectives.slope(self.point, progress)
        self._best.offer(self.point, cost.score)
        return slope

    def look(self) -> None:
        """Offer the point where the search has ended."""
        self._best.offer(self.point, self._objectives(self.point, 1.0).score)

    @torch.no_grad()
    def move(self, direction: Point, rate: float, step: int, project: Project) -> None:
        """One step of Adam, ``step`` counted from 1, and back to where points may be."""
        shrink, unbias = rate / (1 - _FORGET**step), (1 - _FORGET_SQUARES**step) ** 0.5
        for name, gradient in direction.items():
            self._first[name].lerp_(gradient, 1 - _FORGET)
            self._second[name].mul_(_FORGET_SQUARES).addcmul_(gradient, gradient, value=1 - _FORGET_SQUARES)
            length = (self._second[name].sqrt() / unbias).add_(_FLOOR)
            self.point[name].addcdiv_(self._first[name], length, value=-shrink)
        for name, projected in project(self.point).items():
            self.point[name].copy_(projected)

    def leave(self, tolerance: float, steps: int) -> None:
        """Observations all of whose trials have converged are done."""
        below = (self._best.score < tolerance).view(len(self.left), -1).all(1).tolist()
        if any(below):
            for place in (place for place, done in enumerate(below) if done):
                self._note(place, Outcome.CONVERGED, steps)
            self._keep([place for place, done in enumerate(below) if not done])

    def ended(self, outcome: Outcome, steps: int) -> list[Solution]:
        """What was found, of all observations; those that are left end with ``outcome``."""
        for place in range(len(self.left)):
            self._note(place, outcome, steps)
        return [self._found[one] for one in sorted(self._found)]

    def _note(self, place: int, outcome: Outcome, steps: int) -> None:
        trials = slice(place * self._trials, (place + 1) * self._trials)
        late, early = self._best.only(trials), self._early.only(trials)
        best = late if late.score.isfinite().any() else early  # late, unless nothing in it is a number
        self._found[self.left[place]] = best.solution(outcome, steps)

    def _keep(self, places: Sequence[int]) -> None:
        here = torch.tensor(places, dtype=torch.int64, device=self._best.score.device)
        trials = (here[:, None] * self._trials + torch.arange(self._trials, device=here.device)).flatten()
        self.left = [self.left[place] for place in places]
        if places:
            self._objectives = self._objectives.only(places)
        self.point = {name: v.detach()[trials].requires_grad_() for name, v in self.point.items()}
        self._first, self._second = chosen(self._first, trials), chosen(self._second, trials)
        self._best, self._early = self._best.only(trials), self._early.only(trials)


@dataclass(frozen=True)
class _One:
    """One observation's objective."""

    objective: Objective

    def __call__(self, point: Point, progress: float) -> Cost:
        return self.objective(point, progress)

    def slope(self, point: Point, progress: float) -> tuple[Cost, Tensors]:
        return slope(self.objective, point, progress)

    def only(self, kept: Sequence[int]) -> "_One":
        del kept
        return self
