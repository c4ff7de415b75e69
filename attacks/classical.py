"""The attacks that everything is compared with: presets of :class:`attacks.posterior.PosteriorSearch`.

``local`` is what they make of a client's several local steps, by name (:data:`attacks.local.LOCAL`).
"""

from dataclasses import replace
from math import inf
from typing import Literal

from pydantic import NonNegativeInt

from attacks.likelihoods import L2, Cosine, Features, Layers, Support
from attacks.local import LOCAL, Local
from attacks.posterior import PosteriorSearch
from attacks.priors import BatchNormStatistics, GroupConsistency, ImageL2, Prior, TotalVariation
from attacks.solvers import LBFGS, Adam, Schedule
from attacks.variables import Pixels
from fl_sim.core.contracts import Attack

_GRADIENT_WEIGHT = 1e-3  # of the squared gradient distance in GradInversion, beside which the other weights stand


def dlg(*, steps: int = 1200, local: Local = "one_step", restarts: int = 1, seconds: float | None = None) -> Attack:
    """Deep leakage from gradients: squared error, pixels and soft labels together, L-BFGS. arXiv 1906.08935.

    ``steps`` counts evaluations of the objective (the authors' code allows 300 x 20). Differs in that it survives a
    diverging line: back to the best point, smaller step; that the squared error is relative to the observed gradient's
    squares, and the search stops once it is below 1e-6; and that granted labels are used instead of searched ones.
    """
    return _deep_leakage(Pixels(box=False, labels="joint"), steps, local, restarts, seconds)


def idlg(*, steps: int = 1200, local: Local = "one_step", restarts: int = 1, seconds: float | None = None) -> Attack:
    """Improved DLG: the label is read off the last layer, then the pixels are searched as in ``dlg``. arXiv 2001.02610.

    Differs from the paper in that label counts of a batch are inferred too (the paper's rule is for one image), and
    from released code as ``dlg`` does.
    """
    return _deep_leakage(Pixels(box=False), steps, local, restarts, seconds)


def _deep_leakage(variables: Pixels, steps: int, local: Local, restarts: int, seconds: float | None) -> PosteriorSearch:
    return PosteriorSearch(
        likelihood=L2(relative=True),
        variables=variables,
        solver=LBFGS(steps=steps, tolerance=1e-6, seconds=seconds),
        restarts=restarts,
        local=LOCAL[local],
    )


def grad_inversion(
    *,
    steps: int = 2000,
    step_size: float = 0.1,
    tv: float = 1e-4,
    image_l2: float = 1e-6,
    batchnorm: float = 0.1,
    group: float = 0.01,
    local: Local = "one_step",
    restarts: int = 4,
    seconds: float | None = None,
) -> Attack:
    """See through gradients: squared error, batch-norm statistics, total variation, group of starts. arXiv 2104.07586.

    Needs a model with batch norm; ``batchnorm = 0`` drops that term. Weights after the paper, where the gradient's
    distance counts 1e-3: here everything is relative to it. ``restarts`` is the size of the group, kept together by
    their mean. Differs from the paper in the registration (none: the mean is taken pixel by pixel), the noise that it
    adds to each step (none), its 20,000 steps, the schedule (inverting gradients'), labels (counts by the project's own
    rule), and in that the best of the group is returned, not their mean. The authors' code is not public; breaching
    0.1.2 has the terms with a tenth of the weight on the gradient and counts the first batch-norm layer ten times.
    """
    weights = {"tv": tv, "image_l2": image_l2, "batchnorm": batchnorm, "group": group}
    scaled = {name: weight / _GRADIENT_WEIGHT for name, weight in weights.items()}
    priors: tuple[Prior, ...] = (
        TotalVariation(weight=scaled["tv"], power=2, reduction="mean"),
        ImageL2(weight=scaled["image_l2"]),
        GroupConsistency(weight=scaled["group"]),
    )
    return PosteriorSearch(
        likelihood=L2(),
        priors=(*priors, BatchNormStatistics(weight=scaled["batchnorm"], first=1.0)) if batchnorm else priors,
        variables=Pixels(),
        solver=Adam(steps=steps, step_size=step_size, schedule="steps", seconds=seconds),
        restarts=restarts,
        local=LOCAL[local],
    )


def feature_inversion(
    *,
    steps: int = 100,
    tv: float = 3e-3,
    support: Support = "all",
    tolerance: float | None = None,
    restarts: int = 1,
    seconds: float | None = None,
) -> PosteriorSearch:
    """One image, from its input of a fully connected layer, which the gradient gives away. After arXiv 1412.0035.

    That input is read off one image's update (arXiv 2003.14053, proposition D.1), and inverted as a representation is:
    squared distance over its own squares, total variation (arXiv 1412.0035). A step takes half of one that compares
    gradients, and behind a layer as wide as ``cnn``'s fewer are needed (experiments/LOG.md); features that are fewer
    than pixels, after pooling, leave much open. For one image an update, behind a fully connected layer with a bias.
    ``support = "observed"``: zeros were not sent, and say nothing, as behind pruning or Soteria. An observation
    leaves the search, converged, once its objective is below ``tolerance``. Differs from the source in isotropic total
    variation of normalised pixels, and in L-BFGS of ``steps`` steps with 20 pairs instead of gradient descent with
    momentum; it has no box, in whose corners L-BFGS loses one image in sixteen.
    """
    return PosteriorSearch(
        likelihood=Features(support=support),
        priors=(TotalVariation(weight=tv, isotropic=True, smoothing=1e-2),),
        variables=Pixels(box=False),
        solver=LBFGS(steps=steps, history=20, tolerance=_least(tolerance), seconds=seconds),
        restarts=restarts,
    )


def inverting_gradients(
    *,
    steps: int = 1000,
    step_size: float = 0.1,
    tv: float = 1e-3,
    cosine: Literal["plain", "profile"] = "profile",
    signed: bool = True,
    schedule: Schedule = "steps",
    dropped: tuple[str, ...] = (),
    draws: Literal["mean", "fresh"] = "mean",
    support: Support = "all",
    init: Literal["normal", "uniform", "patterned", "mean", "dark", "light", "image"] = "normal",
    image: str | None = None,
    local: Local = "one_step",
    feature_steps: NonNegativeInt = 0,
    tolerance: float | None = None,
    restarts: int = 1,
    seconds: float | None = None,
) -> PosteriorSearch:
    """Inverting gradients with a profile-likelihood cosine, total variation, signed Adam, box. After arXiv 2003.14053.

    ``tv`` weighs mean absolute differences in normalised space, as the authors' code does. Labels that are not granted
    are inferred first; parameters ``dropped`` by name do not count: against Soteria, the layer that it defends;
    ``support = "observed"`` leaves out entries that came as zeros, against Soteria or pruning. Where a model draws,
    ``draws = "fresh"`` draws anew at each step, as an attack does that knows nothing of it. Differs from the paper in
    the cosine (``cosine = "plain"`` is the paper's ``1 - cos``; the profile form is better with and without noise,
    except through narrow nets: see experiments/LOG.md), in the shorter default (the paper runs 4,800 to 24,000 steps),
    and in that the best of the last eighth of the iterates is kept, not the last. The authors' code varies ``tv`` by
    task; breaching 0.1.2 ships 0.2 on the same scale. In short searches (120 steps on ``cnn``) ``signed = False``
    with ``step_size = 0.8`` was 5 dB ahead, and ``schedule = "ramp"`` another 1.5: experiments/LOG.md.

    ``feature_steps`` > 0 starts where so many steps of ``feature_inversion`` end, over the same ``support`` and without
    what is ``dropped``, with that attack's own ``tv``; ``seconds`` does not limit them. Large steps afterwards begin
    again: 40 with ``signed = False, step_size = 0.02`` gained 0.7 dB, with 0.4 they lost six.
    ``tolerance``: an observation leaves the search, converged, once its objective is below that; ``None``: none does.
    The profile cosine is 0.05 at right angles and -1.15 at the target, the plain one 1 and 0, beside ``tv``.
    """
    variables = Pixels(init=init, image=image, noise=draws)
    search = PosteriorSearch(
        likelihood=Cosine(form=cosine, layers=Layers(dropped=dropped), support=support),
        priors=(TotalVariation(weight=tv),),
        variables=variables,
        solver=Adam(
            steps=steps,
            step_size=step_size,
            signed=signed,
            schedule=schedule,
            tolerance=_least(tolerance),
            seconds=seconds,
        ),
        restarts=restarts,
        local=LOCAL[local],
    )
    if not feature_steps:
        return search
    begun = replace(
        feature_inversion(steps=feature_steps),
        likelihood=Features(support=support, dropped=dropped),
        variables=replace(variables, box=False),
        local=search.local,
    )
    return replace(search, first=begun)


def _least(tolerance: float | None) -> float:
    return -inf if tolerance is None else tolerance
