"""L-BFGS, trial by trial."""

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from attacks.solvers.base import Best, Clock, Objective, Project, Solution, Solver
from attacks.variables.base import Point
from fl_sim.core.part import part
from fl_sim.core.types import Outcome


@part
class LBFGS(Solver):
    """Limited-memory BFGS, as DLG uses it (arXiv 1906.08935): its step size is 1 and nothing stops it from diverging.

    Args:
        steps: Most evaluations of the objective a trial; DLG's code allows 300 calls of 20.
        step_size: Of each quasi-Newton step.
        history: Pairs kept.
        tolerance: A trial stops, converged, once its best score is below this.
        seconds: Stop all after this time.

    A trial whose objective is no longer finite goes back to its best point with an empty history and a tenth of the
    step; after ``retries`` of these it ends with the best point it has.
    """

    steps: PositiveInt
    step_size: PositiveFloat = 1.0
    history: PositiveInt = 100
    tolerance: float = -torch.inf
    seconds: PositiveFloat | None = None
    retries: PositiveInt = 3

    def solve(self, objective: Objective, start: Point, project: Project) -> Solution:
        clock, solutions, used = Clock(self.seconds), list[Solution](), 0
        for trial in range(len(next(iter(start.values())))):
            first = {name: v[trial : trial + 1] for name, v in start.items()}
            solutions.append(self._one(objective, first, project, clock))
            used += solutions[-1].iterations
        best = min(solutions, key=lambda s: s.score)
        return Solution(point=best.point, score=best.score, outcome=best.outcome, iterations=used)

    def _one(self, objective: Objective, start: Point, project: Project, clock: Clock) -> Solution:
        best, used, rate = Best(start), 0, self.step_size
        for _ in range(self.retries):
            used, outcome = self._run(objective, best, project, clock, used, rate)
            if outcome is not Outcome.NON_FINITE:
                return best.solution(outcome, used)
            rate /= 10
        return best.solution(Outcome.NON_FINITE, used)

    def _run(
        self, objective: Objective, best: Best, project: Project, clock: Clock, used: int, rate: float
    ) -> tuple[int, Outcome]:
        point = {name: v.clone().requires_grad_() for name, v in best.point.items()}
        lbfgs = torch.optim.LBFGS(list(point.values()), lr=rate, max_iter=1, history_size=self.history)

        def closure() -> Tensor:
            lbfgs.zero_grad()
            cost = objective(point, 1.0)
            best.offer(point, cost.score)
            cost.descended.sum().backward()  # type: ignore[no-untyped-call]
            return cost.descended.sum().detach()

        while used < self.steps:
            value, used = float(lbfgs.step(closure)), used + 1  # type: ignore[no-untyped-call]
            if not torch.isfinite(torch.tensor(value)):
                return used, Outcome.NON_FINITE
            if float(best.score) < self.tolerance:
                return used, Outcome.CONVERGED
            if clock.over():
                return used, Outcome.OUT_OF_TIME
            with torch.no_grad():
                for name, projected in project(point).items():
                    point[name].copy_(projected)
        return used, Outcome.OUT_OF_STEPS
