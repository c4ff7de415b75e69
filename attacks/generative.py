"""Attacks with a generator: a file that ``fl-sim train-prior --kind gan`` or ``fl-sim convert-generator`` made."""

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Literal, TypeAlias

from attacks.generators import load
from attacks.likelihoods import L2, Cosine, DefenseDensity, Likelihood
from attacks.local import LOCAL, Local
from attacks.phases import Phase, Tuning, Untrained, Within
from attacks.posterior import KnowsDefense
from attacks.priors import ImageL2, TotalVariation
from attacks.solvers import Adam, CmaEs
from attacks.staged import StagedSearch
from fl_sim.core.contracts import Attack
from fl_sim.core.errors import ConfigError

Matched: TypeAlias = Literal["cosine", "observed", "l2", "defense"]
"""What gradients are compared by.

Their angle; their angle in the entries that were ``observed`` other than zero, against Soteria and pruning; their
squared distance; the density of the ``defense`` as in ``bayes``, where what is not granted of it is estimated: against
clipping, noise, quantization, pruning.
"""

_LIKELIHOODS: Mapping[Matched, Likelihood] = MappingProxyType(
    {
        "cosine": Cosine(),
        "observed": Cosine(support="observed"),
        "l2": L2(relative=True),
        "defense": DefenseDensity(),
    }
)


def gifd(
    *,
    generator: str,
    stages: int | None = None,
    steps: int = 1000,
    step_size: float = 0.1,
    radii: Sequence[float] | None = None,
    drawn: Sequence[float] | None = None,
    share: float = 0.1,
    match: Matched = "cosine",
    tv: float = 1e-4,
    image_l2: float = 1e-6,
    penalty: float = 0.0,
    keep: Literal["best", "last"] = "best",
    condition: Literal["label", "mapped"] = "label",
    coarse: int = 100,
    local: Local = "one_step",
    restarts: int = 4,
    seconds: float | None = None,
) -> Attack:
    """GIFD: the latent, then the features of one stage after the other, each in an l1 ball. arXiv 2308.04699.

    ``stages``: how many features are searched after the latent; all where it is not given. ``steps`` are of each.
    ``radii``: of the balls, one a stage, in units of the features; else ``share`` of the mean l1 norm that the
    generator's own draws have there; ``share = 0``: no balls. ``drawn``, beside ``radii``: of the balls around what was
    drawn (latents, styles, each noise map), one for the first phase and one a stage; else these are free. ``penalty``
    weighs the latent's own ``-log p``. Returned is the image of that stage and restart whose gradient comes nearest,
    regularisers apart. ``seconds`` are of all of an observation's restarts. Presets of the paper: BigGAN ``stages = 9,
    radii = 2000, 2500, … 6000``; StyleGAN2 ``stages = 4, radii = 2000, 3000, … 5000, drawn = 1000, 2000, … 5000``.

    ``condition = "mapped"``: the generator is told not the label but the class that its own classifier sees in what a
    search of ``coarse`` steps a stage found, from the same latents: for clients whose classes or images are not the
    generator's (arXiv 2604.00955). Gradients are matched under the label all the same, other than in the authors' code.

    Differs from the released code (at ff243fe), which returns the last restart instead of the best one, and in that a
    stage ends at the best of its last eighth of iterates, not at the last.
    """
    depth = load(generator).depth if stages is None else stages + 1
    balls = _balls(depth, radii, drawn, share)
    whole = depth * (steps + coarse * (condition == "mapped")) * restarts

    def phases(each: int) -> tuple[Phase, ...]:
        limit = seconds and seconds * each / whole
        solver = Adam(steps=each, step_size=step_size, schedule="ramp", seconds=limit)
        return tuple(
            Within(solver=solver, place=i, **radii_of, relative=radii is None, penalty=0.0 if i else penalty)
            for i, radii_of in enumerate(balls)
        )

    before = phases(coarse) if condition == "mapped" else ()
    return _staged(
        generator,
        match,
        phases(steps),
        tv=tv,
        image_l2=image_l2,
        restarts=restarts,
        keep=keep,
        local=local,
        coarse=before,
    )


gifd_z = partial(gifd, stages=0)
"""GIFD's first stage alone: the latent."""

gifd_f = partial(gifd, share=0.0, keep="last")
"""GIFD without balls; the last stage is kept."""

gifd_e = partial(gifd, share=0.0)
"""GIFD without balls."""


def ggl(
    *,
    generator: str,
    steps: int = 800,
    population: int = 50,
    bound: float = 2.0,
    match: Matched = "l2",
    penalty: float = 0.0,
    local: Local = "one_step",
    restarts: int = 1,
    seconds: float | None = None,
) -> Attack:
    """GGL: the latent by CMA-ES, without derivatives. arXiv 2203.15696.

    Each of ``steps`` generations costs ``population`` gradients, first-order ones. Latents stay in ``[-bound, bound]``;
    the authors' code squashes them by tanh. ``match = "l2"`` is relative to the observed gradient. ``penalty`` weighs
    ``-log p`` of the latents under N(0, I), where the authors have a divergence of their mean and variance.
    """
    solver = CmaEs(steps=steps, trials=population, bound=bound, seconds=seconds and seconds / restarts)
    phases = (Within(solver=solver, penalty=penalty),)
    return _staged(generator, match, phases, tv=0.0, image_l2=0.0, restarts=restarts, keep="best", local=local)


def gias(
    *,
    generator: str,
    latent_steps: int = 1000,
    latent_step_size: float = 0.03,
    steps: int = 8000,
    step_size: float = 1e-3,
    match: Matched = "cosine",
    tv: float = 1e-4,
    local: Local = "one_step",
    restarts: int = 4,
    seconds: float | None = None,
) -> Attack:
    """GIAS: the latent, then the generator's weights, of each image its own. arXiv 2110.14962.

    Of the authors' code the weights' step size for 32x32 images; restarts differ from the first latent on.
    """
    half = seconds and seconds / (2 * restarts)
    phases = (
        Within(solver=Adam(steps=latent_steps, step_size=latent_step_size, schedule="steps", seconds=half)),
        Tuning(solver=Adam(steps=steps, step_size=step_size, schedule="steps", seconds=half)),
    )
    return _staged(generator, match, phases, tv=tv, image_l2=0.0, restarts=restarts, keep="best", local=local)


def gion(
    *,
    steps: int = 2000,
    step_size: float = 1e-3,
    width: int = 0,
    latents: int = 128,
    match: Matched = "cosine",
    tv: float = 0.0,
    local: Local = "one_step",
    restarts: int = 1,
    seconds: float | None = None,
) -> Attack:
    """The weights of an untrained network that makes the images of a batch; nothing is known of images. ICCV 2023.

    "Generative gradient inversion via over-parameterized networks in federated learning": signed Adam, inputs drawn
    once. ``width`` 0: doubled until the weights outnumber four times the pixels of a batch. Differs from the authors'
    code in the network, which is ours, in that models keep their ReLUs, and in that no truth says when to stop.
    """
    solver = Adam(steps=steps, step_size=step_size, signed=True, seconds=seconds and seconds / restarts)
    phases = (Tuning(solver=solver, each="trial", fresh=True),)
    untrained = Untrained(latents=latents, width=width)
    return _staged(untrained, match, phases, tv=tv, image_l2=0.0, restarts=restarts, keep="best", local=local)


def _staged(
    generator: str | Untrained,
    match: Matched,
    phases: tuple[Phase, ...],
    *,
    tv: float,
    image_l2: float,
    restarts: int,
    keep: Literal["best", "last"],
    local: Local,
    coarse: tuple[Phase, ...] = (),
) -> Attack:
    priors = (TotalVariation(weight=tv), ImageL2(weight=image_l2))
    search = StagedSearch(
        likelihood=_LIKELIHOODS[match],
        priors=tuple(prior for prior in priors if prior.weight),
        generator=generator,
        phases=phases,
        restarts=restarts,
        keep=keep,
        coarse=coarse,
        local=LOCAL[local],
    )
    return KnowsDefense(search=search) if match == "defense" else search


def _balls(
    phases: int, radii: Sequence[float] | None, drawn: Sequence[float] | None, share: float
) -> list[dict[str, float | None]]:
    """Radii of the balls around features and around what was drawn, one of each a phase."""
    features: list[float | None] = [share or None] * (phases - 1) if radii is None else list(radii)
    if len(features) != phases - 1:
        raise ConfigError(f"radii: expected one for each of {phases - 1} stages, got {len(features)}")
    others: list[float | None] = [None] * phases if drawn is None else list(drawn)
    if len(others) != phases or (drawn is not None and radii is None):
        raise ConfigError(
            f"drawn: expected one for each of {phases} phases, in the units of radii, got {len(others)} with "
            f"radii = {radii}: give both, or neither"
        )
    return [{"feature": ball, "drawn": other} for ball, other in zip([None, *features], others, strict=True)]
