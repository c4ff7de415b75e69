"""Where a search of several observations stands, all their trials stacked."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from attacks.solvers.base import Best, Cost, Objectives, Solution, chosen
from attacks.variables.base import Point
from fl_sim.core.types import Outcome, Tensors

LOOK_EVERY = 25  # steps between two looks at the scores; each waits for the device

Fate: TypeAlias = Callable[[int], Outcome]
"""How the search ended for the trial in a place among those that are left."""


class Walk:
    """The trials that are left, the best of each so far, and what a solver remembers of each.

    Args:
        start: Trials of the first observation, then of the next.
        many: Observations, with equally many trials.
    """

    def __init__(self, objectives: Objectives, start: Point, many: int) -> None:
        self.point = {name: v.detach().clone().requires_grad_() for name, v in start.items()}
        self.left = list(range(many))  # observations
        self.memory: dict[str, dict[str, Tensor]] = {}  # a trial dimension first, as in points
        self.best = self._early = Best(self.point)
        self._objectives, self._trials = objectives, len(next(iter(start.values()))) // many
        self._found: dict[int, Solution] = {}

    def settle(self) -> None:
        """Gather the best anew."""
        self._early, self.best = self.best, Best(self.point)

    def slope(self, progress: float) -> tuple[Cost, Tensors]:
        cost, slope = self._objectives.slope(self.point, progress)
        self.best.offer(self.point, cost.score)
        return cost, slope

    def project(self, point: Point) -> Point:
        return self._objectives.project(point)

    def look(self, progress: float = 1.0) -> Cost:
        """The cost where it stands, without a derivative; by default where the search has ended."""
        cost = self._objectives({name: v.detach() for name, v in self.point.items()}, progress)
        self.best.offer(self.point, cost.score)
        return cost

    @torch.no_grad()
    def go(self, point: Point) -> None:
        for name, value in point.items():
            self.point[name].copy_(value)

    def leave(self, done: Tensor, fate: Fate, steps: int) -> None:
        """Observations all of whose trials are ``done`` ``(T,)`` end here."""
        over = done.view(len(self.left), -1).all(1).tolist()
        if any(over):
            for place in (place for place, gone in enumerate(over) if gone):
                self._note(place, fate, steps)
            self._keep([place for place, gone in enumerate(over) if not gone])

    def ended(self, fate: Fate, steps: int) -> list[Solution]:
        """What was found, of all observations; those that are left end now."""
        for place in range(len(self.left)):
            self._note(place, fate, steps)
        return [self._found[one] for one in sorted(self._found)]

    def _note(self, place: int, fate: Fate, steps: int) -> None:
        trials = slice(place * self._trials, (place + 1) * self._trials)
        late, early = self.best.only(trials), self._early.only(trials)
        best = late if late.score.isfinite().any() else early  # late, unless nothing in it is a number
        self._found[self.left[place]] = best.solution(fate(trials.start + best.first()), steps)

    def _keep(self, places: Sequence[int]) -> None:
        here = torch.tensor(places, dtype=torch.int64, device=self.best.score.device)
        trials = (here[:, None] * self._trials + torch.arange(self._trials, device=here.device)).flatten()
        self.left = [self.left[place] for place in places]
        if places:
            self._objectives = self._objectives.only(places)
        self.point = {name: v.detach()[trials].requires_grad_() for name, v in self.point.items()}
        self.memory = {name: chosen(tree, trials) for name, tree in self.memory.items()}
        self.best, self._early = self.best.only(trials), self._early.only(trials)
