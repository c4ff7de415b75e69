"""Search without derivatives."""

from typing import TYPE_CHECKING

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from attacks.solvers.base import Clock, Objectives, Solution, Solver, stacked, unstacked
from attacks.solvers.walk import Walk
from attacks.variables.base import Point
from fl_sim.core.part import part
from fl_sim.core.seeds import derive_int
from fl_sim.core.types import Outcome

if TYPE_CHECKING:
    from cmaes import CMA

_SEEDS = 2**32


@part
class CmaEs(Solver):
    """CMA-ES (arXiv 1604.00772) of the library ``cmaes``; the populations of all observations are costed at once.

    Args:
        steps: Generations.
        trials: The population: what an observation needs of trials. The first of them is where its search begins.
        spread: Standard deviation of the first generation, in units of the variables.
        bound: Entries stay in ``[-bound, bound]``; what leaves is clipped (drawn anew until it fits, most of a search's
            time goes into draws).
        seed: Of all draws; the same for every observation.
        seconds: Stop after this time, for each observation.

    Points are flattened: of a batch it searches all images' variables together.
    """

    steps: PositiveInt
    trials: int = Field(default=50, ge=2)
    spread: PositiveFloat = 1.0
    bound: PositiveFloat = 1e3
    seed: int = 0
    seconds: PositiveFloat | None = None

    def solve_all(self, objectives: Objectives, start: Point, many: int) -> list[Solution]:
        import numpy as np

        walk, clock = Walk(objectives, start, many), Clock(None if self.seconds is None else many * self.seconds)
        flat = stacked(start).view(many, self.trials, -1)
        searches = [self._search(flat[i, 0], i) for i in range(many)]
        for step in range(self.steps):
            asked = [np.stack([search.ask() for _ in range(self.trials)]) for search in searches]
            walk.go(walk.project(unstacked(torch.from_numpy(np.concatenate(asked)).to(flat), start)))
            score = walk.look(step / self.steps).descended.detach().double().nan_to_num(torch.inf).cpu().numpy()
            for search, points, scores in zip(searches, asked, score.reshape(many, -1), strict=True):
                search.tell(list(zip(points, scores, strict=True)))
            if clock.over():
                return walk.ended(lambda _: Outcome.OUT_OF_TIME, step + 1)
        return walk.ended(lambda _: Outcome.OUT_OF_STEPS, self.steps)

    def _search(self, mean: Tensor, place: int) -> "CMA":
        import numpy as np
        from cmaes import CMA

        first = mean.detach().double().cpu().numpy().clip(-self.bound, self.bound)
        bounds = np.tile([-self.bound, self.bound], (len(first), 1))
        seed = derive_int(self.seed, "cma", place) % _SEEDS
        return CMA(first, self.spread, bounds=bounds, n_max_resampling=1, seed=seed, population_size=self.trials)
