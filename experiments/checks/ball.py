"""K7: the best point, the best ball, and the paper's bound on it, where they differ."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch

from attacks.ball import DeltaBall, uniform_in_ball
from attacks.likelihoods import DefenseDensity, Nothing
from attacks.posterior import PosteriorSearch
from attacks.priors import GaussianPixels, Mixture
from attacks.problem import Problem
from attacks.solvers import Adam
from attacks.variables import Pixels
from defenses.noise import Gaussian
from experiments.checks.answer import Answer, near
from experiments.checks.world import QUASI_NEWTON, defended, network, random_batch, watched
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Observation, Task

_LINE = Task(image_shape=(1, 1, 1), classes=10, mean=(0.5,), std=(0.1,))
_WEIGHTS, _MEANS, _STDS = (0.2, 0.8), (0.0, 3.0), (0.01, 1.0)
_MIXTURE = Mixture(means=tuple((m,) for m in _MEANS), stds=_STDS, weights=_WEIGHTS)
_LINE_PIXELS = Pixels(box=False, init="normal", spread=2.0)
_PAIRS = 2000  # so that chance does not put too many draws into the narrow peak


def mode_is_the_narrow_peak() -> Answer:
    """K7: the density is highest at 0."""
    return near(_best(None), 0.0, 0.02, "density 7.98 at 0, 0.32 at 3")


def ball_is_the_broad_peak() -> Answer:
    """K7: half a unit around 3 holds more mass than around 0."""
    return near(_best(_exact(0.5)), 3.0, 0.25, "argmax of the ball's mass, delta 0.5")


def small_ball_stays() -> Answer:
    """K7: the exact ball moves between delta 0.30 and 0.35; at 0.2 it is still at the narrow peak."""
    return Answer(abs(_best(_exact(0.2))), 0.0, 0.2, "argmax of the mass, delta 0.2")


def ball_flips_where_it_should() -> Answer:
    """K7: the mass around 0 over that around 3 falls below 1 between delta 0.30 and 0.35."""
    at = [_favour(DeltaBall(delta=delta, pairs=50_000, form="exact")) for delta in (0.30, 0.35)]
    return Answer(min(at[0], -at[1]), 0.0, math.inf, "log of the masses' ratio: above 0 at 0.30, below 0 at 0.35")


def bound_flips_where_it_should() -> Answer:
    """K7: Jensen's bound prefers 0 up to delta 0.04, 3 from 0.05 on."""
    at = [_favour(DeltaBall(delta=delta, pairs=50_000)) for delta in (0.04, 0.05)]
    return Answer(min(at[0], -at[1]), 0.0, math.inf, "difference of the bounds: above 0 at 0.04, below 0 at 0.05")


def bound_flips_early() -> Answer:
    """K7: Jensen's bound moves between delta 0.04 and 0.05; at 0.1 it is at the broad peak."""
    return near(_best(DeltaBall(delta=0.1, pairs=100)), 3.0, 0.1, "argmax of Jensen's bound, delta 0.1")


def ball_lowers_the_risk() -> Answer:
    """K7: the risk of the ball's answer minus that of the mode, at delta 0.5."""
    ball = _risk(_best(_exact(0.5)), 0.5)
    return near(ball - _risk(_best(None), 0.5), 0.694 - 0.795, 0.01, "risk 0.694 against 0.795")


def ball_equals_mode_of_a_gaussian() -> Answer:
    """K7: a symmetric posterior has its mode, mean and every ball's centre in one place."""
    batch = random_batch(1)
    seen = defended(watched(network("softmax"), batch), [Gaussian(std=0.1)])
    prior = GaussianPixels(mean=0.0, std=3.0)
    guesses = [
        PosteriorSearch(
            likelihood=DefenseDensity(),
            priors=(prior,),
            variables=Pixels(box=False, init="mean"),
            solver=QUASI_NEWTON,
            ball=ball,
        )(seen, network("softmax"), derive(0)).images
        for ball in (None, DeltaBall(delta=2.0, pairs=4))
    ]
    return Answer((guesses[0] - guesses[1]).abs().max().item() * 10, 0.0, 1e-3, "same image, normalised units")


def draws_fill_the_ball() -> Answer:
    """K7: uniform in eight dimensions, so ``E |u|^2 = 0.8 delta^2``; a uniform radius would give 0.33."""
    drawn = uniform_in_ball(20_000, 8, 2.0, derive(0, "ball"))
    return near(drawn.square().sum(1).mean().item() / 4, 0.8, 0.01, "d / (d + 2)")


def _favour(ball: DeltaBall) -> float:
    """By how much the ball's objective prefers the centre 0 to the centre 3, in nats."""
    attack = PosteriorSearch(
        likelihood=Nothing(), priors=(_MIXTURE,), variables=_LINE_PIXELS, solver=QUASI_NEWTON, ball=ball
    )
    problem = Problem.of(_unseen(), network("softmax", _LINE), derive(0), "cpu")
    centres = {"pixels": torch.tensor(_MEANS).view(2, 1, 1, 1, 1)}
    costs = attack.objective(problem, derive(0, "line"))(centres, 1.0).score
    return (costs[1] - costs[0]).item()


def _exact(delta: float) -> DeltaBall:
    return DeltaBall(delta=delta, pairs=_PAIRS, form="exact")


def _best(ball: DeltaBall | None) -> float:
    """Where a search ends that sees nothing but the mixture, as a normalised pixel."""
    attack = PosteriorSearch(
        likelihood=Nothing(),
        priors=(_MIXTURE,),
        variables=_LINE_PIXELS,
        solver=Adam(steps=300, step_size=0.05, schedule="steps"),
        restarts=200 if ball is None else 40,  # the peak is narrow, a ball is not
        ball=ball,
    )
    return (attack(_unseen(), network("softmax", _LINE), derive(0, "line")).images.item() - 0.5) / 0.1


def _unseen() -> Observation:
    """Of one pixel; nothing here looks at it."""
    return watched(network("softmax", _LINE), Batch(torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])), _LINE)


def _risk(guess: float, delta: float) -> float:
    """``P(|x - guess| > delta)`` under the mixture."""
    peaks = zip(_MEANS, _STDS, strict=True)
    inside = [_below((guess + delta - m) / s) - _below((guess - delta - m) / s) for m, s in peaks]
    return 1 - sum(w * mass for w, mass in zip(_WEIGHTS, inside, strict=True))


def _below(deviations: float) -> float:
    return (1 + math.erf(deviations / math.sqrt(2))) / 2


CHECKS: Mapping[str, Callable[[], Answer]] = MappingProxyType(
    {
        "K7 mode": mode_is_the_narrow_peak,
        "K7 ball": ball_is_the_broad_peak,
        "K7 small ball": small_ball_stays,
        "K7 jensen": bound_flips_early,
        "K7 ball flips": ball_flips_where_it_should,
        "K7 jensen flips": bound_flips_where_it_should,
        "K7 risk": ball_lowers_the_risk,
        "K7 gaussian": ball_equals_mode_of_a_gaussian,
        "K7 sampler": draws_fill_the_ball,
    }
)
