"""L-BFGS, all trials at once."""

from typing import Final

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from attacks.solvers.base import COPIES, Clock, Objectives, Solution, Solver, stacked, unstacked
from attacks.solvers.walk import LOOK_EVERY, Fate, Walk
from attacks.variables.base import Point
from fl_sim.core.part import part
from fl_sim.core.types import Outcome

_STILL, _FLAT, _CURVED = 1e-9, 1e-7, 1e-10  # torch.optim.LBFGS's: least descent, least slope, least curvature
_PAIRS: Final = "pairs"


@part
class LBFGS(Solver):
    """Limited-memory BFGS, as DLG uses it (arXiv 1906.08935): its step size is 1 and nothing stops it from diverging.

    Each trial takes the steps that ``torch.optim.LBFGS`` without line search takes where nothing is projected, with a
    history of its own, whose memory is taken at once.

    Args:
        steps: Most evaluations of the objective a trial; DLG's code allows 300 calls of 20.
        step_size: Of each quasi-Newton step.
        history: Pairs kept.
        tolerance: A trial stops, converged, once its best score is below this.
        seconds: Stop all after this time, for each observation.

    A trial ends, out of steps, where its slope is flat or leads nowhere: it would stay there for the rest of them. One
    whose objective is no longer finite goes back to its best point with an empty history and a tenth of the
    step; after ``retries`` of these it ends with the best point it has.
    """

    steps: PositiveInt
    step_size: PositiveFloat = 1.0
    history: PositiveInt = 100
    tolerance: float = -torch.inf
    seconds: PositiveFloat | None = None
    retries: PositiveInt = 3

    @property
    def leaves(self) -> bool:
        return True

    @property
    def copies(self) -> int:
        return COPIES + 2 * min(self.history, self.steps)

    def solve_all(self, objectives: Objectives, start: Point, many: int) -> list[Solution]:
        walk, clock = Walk(objectives, start, many), Clock(None if self.seconds is None else many * self.seconds)
        walk.memory[_PAIRS] = self._fresh(stacked(start))
        for step in range(self.steps):
            cost, gradient = walk.slope(1.0)
            walk.go(self._moved(walk, cost.descended.detach(), stacked(gradient)))
            if clock.over():
                return walk.ended(self._fate(walk, Outcome.OUT_OF_TIME), step + 1)
            if step % LOOK_EVERY == LOOK_EVERY - 1 or step == self.steps - 1:
                walk.leave(self._done(walk), self._fate(walk, Outcome.OUT_OF_STEPS), step + 1)
            if not walk.left:
                break
        return walk.ended(self._fate(walk, Outcome.OUT_OF_STEPS), self.steps)

    def _done(self, walk: Walk) -> Tensor:
        known = walk.memory[_PAIRS]
        return (walk.best.score < self.tolerance) | (known["lives"] == 0) | known["still"]

    def _fate(self, walk: Walk, otherwise: Outcome) -> Fate:
        def of(trial: int) -> Outcome:
            if float(walk.best.score[trial]) < self.tolerance:
                return Outcome.CONVERGED
            return otherwise if int(walk.memory[_PAIRS]["lives"][trial]) else Outcome.NON_FINITE

        return of

    def _fresh(self, first: Tensor) -> dict[str, Tensor]:
        """What is known of each trial of ``first`` ``(T, d)`` before its first step."""
        trials, kept = len(first), min(self.history, self.steps)
        return {
            "steps": first.new_zeros(trials, kept, first.shape[1]),  # of the pairs kept, a ring
            "changes": first.new_zeros(trials, kept, first.shape[1]),  # of the gradient meanwhile
            "products": first.new_zeros(trials, kept, kept),  # each step times each change
            "head": torch.zeros(trials, dtype=torch.int64, device=first.device),  # where the next pair goes
            "scale": first.new_ones(trials),  # of the first guess at the inverse Hessian
            "gradient": torch.zeros_like(first),  # before the last step
            "moved": torch.zeros_like(first),  # by the last step
            "young": torch.ones(trials, dtype=torch.bool, device=first.device),  # no step was taken yet
            "still": torch.zeros(trials, dtype=torch.bool, device=first.device),  # nowhere to go
            "rate": first.new_full((trials,), self.step_size),
            "lives": torch.full((trials,), self.retries, dtype=torch.int64, device=first.device),
        }

    @torch.no_grad()
    def _moved(self, walk: Walk, value: Tensor, gradient: Tensor) -> Point:
        """Where this step leads; the trials' memory is updated in place."""
        known, here = walk.memory[_PAIRS], stacked(walk.point)
        lost = ~value.isfinite() & (known["lives"] > 0)
        _learn(known, gradient)
        direction = _direction(known, gradient)
        still = (gradient.abs().amax(1) <= _FLAT) | ((gradient * direction).sum(1) > -_STILL)
        first = (1 / gradient.abs().sum(1)).clamp(max=1)
        length = known["rate"] * torch.where(known["young"], first, 1.0)
        known["still"].logical_or_(still & ~lost)
        moves = (~still & ~lost & ~self._done(walk))[:, None]
        moved = torch.where(moves, length[:, None] * direction, 0.0)
        allowed = stacked(walk.project(unstacked(here + moved, walk.point)))
        known["moved"].copy_(moved + (allowed - (here + moved)))
        known["gradient"].copy_(gradient)
        known["young"].logical_and_(~moves[:, 0])
        _start_over(known, lost)
        return unstacked(torch.where(lost[:, None], stacked(walk.best.point), allowed), walk.point)


def _learn(known: dict[str, Tensor], gradient: Tensor) -> None:
    """Keep the last step and what it changed, of trials that it told something of the curvature."""
    change = gradient - known["gradient"]
    curvature = (change * known["moved"]).sum(1)
    tells = (curvature > _CURVED) & ~known["young"]
    trials, head = torch.arange(len(gradient), device=gradient.device), known["head"]

    def put(kept: Tensor, value: Tensor) -> None:
        kept[trials, head] = torch.where(tells[:, None], value, kept[trials, head])

    put(known["steps"], known["moved"])
    put(known["changes"], change)
    put(known["products"], _along(known["changes"], known["moved"]))
    put(known["products"].mT, _along(known["steps"], change))
    known["scale"].copy_(torch.where(tells, curvature / change.square().sum(1), known["scale"]))
    head.copy_(torch.where(tells, (head + 1) % known["steps"].shape[1], head))


def _direction(known: dict[str, Tensor], gradient: Tensor) -> Tensor:
    """Minus the inverse Hessian times the gradient, ``(T, d)``.

    The two loops over pairs solve two triangular systems in the products of steps and changes, from the newest pair to
    the oldest and back.
    """
    steps, changes, kept = known["steps"], known["changes"], known["steps"].shape[1]
    ages = (known["head"][:, None] - 1 - torch.arange(kept, device=gradient.device)) % kept  # places, the newest first
    by_age = known["products"].gather(1, ages[:, :, None].expand(-1, -1, kept))
    by_age = by_age.gather(2, ages[:, None].expand(-1, kept, -1))
    own = by_age.diagonal(dim1=1, dim2=2)
    lower = by_age.tril() + torch.diag_embed((own == 0).to(own))

    def times(rows: Tensor, vector: Tensor) -> Tensor:
        return _along(rows, vector).gather(1, ages)[:, :, None]

    shares = torch.linalg.solve_triangular(lower, times(steps, -gradient), upper=False)
    first = known["scale"][:, None] * (-gradient - _sum(changes, shares, ages))
    back = torch.linalg.solve_triangular(lower.mT, own[:, :, None] * shares - times(changes, first), upper=True)
    return first + _sum(steps, back, ages)


def _sum(rows: Tensor, weights: Tensor, places: Tensor) -> Tensor:
    """Of ``rows`` ``(T, k, d)`` with weights ``(T, k, 1)``, the first for the row in the first of ``places``."""
    by_row = torch.zeros_like(weights).scatter(1, places[:, :, None], weights)
    return (by_row.mT @ rows).squeeze(1)


def _along(rows: Tensor, vector: Tensor) -> Tensor:
    """The products of ``rows`` ``(T, k, d)`` with ``vector`` ``(T, d)``, ``(T, k)``.

    As a row times a matrix, like every product here: PyTorch's CPU kernel takes up to eight times as long for a column.
    """
    return (vector[:, None] @ rows.mT).squeeze(1)


def _start_over(known: dict[str, Tensor], lost: Tensor) -> None:
    """Trials that ``lost`` their way forget everything and take shorter steps."""
    for name in ("steps", "changes", "products"):
        known[name].masked_fill_(lost[:, None, None], 0.0)
    known["scale"].masked_fill_(lost, 1.0)
    known["young"].logical_or_(lost)
    known["rate"].mul_(torch.where(lost, 0.1, 1.0))
    known["lives"].sub_(lost.long())
