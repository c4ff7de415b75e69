"""The attacks that everything is compared with: presets of :class:`attacks.posterior.PosteriorSearch`."""

from typing import Literal

from attacks.likelihoods import L2, Cosine
from attacks.posterior import PosteriorSearch
from attacks.priors import TotalVariation
from attacks.solvers import LBFGS, Adam
from attacks.variables import Pixels
from fl_sim.core.contracts import Attack


def dlg(*, steps: int = 1200, restarts: int = 1, seconds: float | None = None) -> Attack:
    """Deep leakage from gradients: squared error, pixels and soft labels together, L-BFGS. arXiv 1906.08935.

    ``steps`` counts evaluations of the objective (the authors' code allows 300 x 20). Differs in that it survives a
    diverging line: back to the best point, smaller step. Granted labels are used instead of searched ones.
    """
    return PosteriorSearch(
        likelihood=L2(),
        variables=Pixels(box=False, labels="joint"),
        solver=LBFGS(steps=steps, tolerance=1e-6, seconds=seconds),
        restarts=restarts,
    )


def inverting_gradients(
    *,
    steps: int = 1000,
    step_size: float = 0.1,
    tv: float = 1e-3,
    cosine: Literal["plain", "profile"] = "profile",
    restarts: int = 1,
    seconds: float | None = None,
) -> Attack:
    """Inverting gradients with a profile-likelihood cosine, total variation, signed Adam, box. After arXiv 2003.14053.

    ``tv`` weighs mean absolute differences in normalised space, as the authors' code does. Labels that are not granted
    are inferred first. Differs from the paper in the cosine (``cosine = "plain"`` is the paper's ``1 - cos``; the
    profile form is better with and without noise, except through narrow nets: see experiments/LOG.md), in the shorter
    default (the paper runs 4,800 to 24,000 steps), and in that the best iterate is kept, not the last.
    """
    return PosteriorSearch(
        likelihood=Cosine(form=cosine),
        priors=(TotalVariation(weight=tv),),
        variables=Pixels(),
        solver=Adam(steps=steps, step_size=step_size, signed=True, schedule="steps", seconds=seconds),
        restarts=restarts,
    )
