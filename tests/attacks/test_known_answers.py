"""Searches that must end where mathematics says: closed-form posteriors on zero-weight softmax regression."""

from typing import Literal

import pytest
import torch
from torch import Tensor

from attacks.likelihoods import L2, Cosine, DefenseDensity, Likelihood
from attacks.posterior import PosteriorSearch
from attacks.priors import Prior, TotalVariation
from attacks.solvers import LBFGS, Adam, Solver
from attacks.variables import Pixels, Variables
from fl_sim.core.seeds import derive
from fl_sim.core.types import Observation
from tests.attacks import zero

STD = 0.05
QUASI_NEWTON = LBFGS(steps=100, tolerance=-float("inf"))  # a log-density has no natural zero to stop at
SOLVERS = pytest.mark.parametrize("solver", [Adam(steps=1500, schedule="steps"), QUASI_NEWTON], ids=["adam", "lbfgs"])
FREE, FROM_GREY = Pixels(box=False), Pixels(box=False, init="mean")


def search(
    seen: Observation, likelihood: Likelihood, solver: Solver, *priors: Prior, variables: Variables = FREE
) -> Tensor:
    attack = PosteriorSearch(likelihood=likelihood, priors=priors, variables=variables, solver=solver)
    return attack(seen, zero.net(), derive(0)).images[0]


@SOLVERS
@pytest.mark.parametrize("likelihood", [L2(), DefenseDensity()], ids=["l2", "density"])
def test_without_a_prior_the_answer_is_least_squares(likelihood: Likelihood, solver: Solver) -> None:
    """K1 with a uniform prior."""
    seen = zero.noisy(STD)
    expected = zero.pixels(zero.least_squares(seen))
    assert 0 < expected.min() < expected.max() < 1  # so that the attack's last clamp does nothing
    assert (search(seen, likelihood, solver) - expected).abs().max() < 1e-4


@SOLVERS
@pytest.mark.parametrize("weight", [1.0, 30.0])
def test_with_squared_total_variation_the_answer_is_a_filter(weight: float, solver: Solver) -> None:
    """K2: in Fourier space each frequency of the least-squares image is damped by its own factor."""
    seen = zero.noisy(STD)
    sharpness = zero.residual().square().sum() / STD**2
    wave = 2 - 2 * torch.cos(2 * torch.pi * torch.arange(8) / 8)
    damping = sharpness / (sharpness + 2 * weight * (wave[:, None] + wave))
    expected = zero.pixels(torch.fft.ifft2(torch.fft.fft2(zero.least_squares(seen)) * damping).real)
    prior = TotalVariation(weight=weight, power=2, reduction="sum", periodic=True)
    assert (search(seen, DefenseDensity(), solver, prior) - expected).abs().max() < 1e-4
    assert (expected - zero.pixels(zero.least_squares(seen))).abs().max() > 1e-3  # the prior does something


@pytest.mark.parametrize("form", ["plain", "profile"])
def test_the_best_cosine_has_the_scale_that_the_bias_gives_it(form: Literal["plain", "profile"]) -> None:
    """K6: v = [g_W|g_b]^T r, the answer is v's image part over its bias part."""
    seen = zero.noisy(STD)
    r = zero.residual()
    image, height = seen.update.delta["net.head.weight"].T @ r, seen.update.delta["net.head.bias"] @ r
    expected = zero.pixels((image / height).view(1, 8, 8))
    found = search(seen, Cosine(form=form), QUASI_NEWTON, variables=FROM_GREY)
    assert (found - expected).abs().max() < 1e-3
