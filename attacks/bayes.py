"""The Bayes-optimal adversary of arXiv 2111.04706, in its MAP form."""

from attacks.likelihoods import DefenseDensity
from attacks.posterior import Annealing, KnowsDefense, PosteriorSearch
from attacks.priors import TotalVariation
from attacks.solvers import Adam
from attacks.variables import Pixels
from fl_sim.core.contracts import Attack


def bayes(
    *,
    steps: int = 600,
    step_size: float = 0.1,
    tv: float = 0.2,
    anneal_from: float = 0.1,
    restarts: int = 1,
    seconds: float | None = None,
) -> Attack:
    """Bayes-optimal: the defense's own density, squared total variation, annealed likelihood. arXiv 2111.04706.

    Needs the defense with its parameters; without a density, the surrogate that the defense names is used. ``tv``
    weighs the periodic sum of squared differences in normalised space, as in the released code; the likelihood's
    factor grows from ``anneal_from`` to 1 over the first half. Differs from the release (Adam, no box, 200 steps,
    learning rate times .94 a step) in the box, the step count and inverting gradients' step schedule.
    """
    return KnowsDefense(
        search=PosteriorSearch(
            likelihood=DefenseDensity(),
            priors=(TotalVariation(weight=tv, power=2, reduction="sum", periodic=True),),
            variables=Pixels(),
            solver=Adam(steps=steps, step_size=step_size, schedule="steps", seconds=seconds),
            restarts=restarts,
            annealing=Annealing(first=anneal_from, until=0.5),
        )
    )
