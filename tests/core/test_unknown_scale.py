"""Noise of unknown scale: read from small entries before a search, fitted to each guess during it."""

import math

import pytest
import torch
from scipy import stats
from scipy.optimize import minimize_scalar

from fl_sim.core.density import LEAST, Choice, Interval, LaplaceNoise, Noise, Normal, log_likelihood
from fl_sim.core.seeds import derive
from fl_sim.core.types import Tensors

LAWS: dict[str, type[Normal] | type[LaplaceNoise]] = {"normal": Normal, "laplace": LaplaceNoise}
SHAPES = {"w": (6, 5), "b": (4,), "scalar": ()}
law = pytest.mark.parametrize("name", LAWS)


def residuals(trials: int = 3) -> Tensors:
    """Of trials that fit ever worse."""
    worse = 10.0 ** torch.arange(trials).double()
    drawn = {k: torch.randn((trials, *s), generator=derive(0, k)).double() for k, s in SHAPES.items()}
    return {k: t * worse.view(-1, *[1] * (t.dim() - 1)) for k, t in drawn.items()}


def known(noise: Noise, tree: Tensors, trial: int) -> float:
    zeros = {k: torch.zeros_like(t[0]) for k, t in tree.items()}
    one = [Choice(1.0, {k: t[trial : trial + 1] for k, t in tree.items()})]
    return log_likelihood(Interval(zeros, zeros), one, noise).item()


@law
def test_the_profile_is_the_largest_likelihood_over_scales(name: str) -> None:
    """Each trial has the scale that suits it, found by a search that knows no formula."""
    tree = residuals()
    found = LAWS[name](1.0).log_profile(tree)
    assert found.dtype is torch.float64
    for trial in range(3):
        best = minimize_scalar(lambda s, t=trial: -known(LAWS[name](math.exp(s)), tree, t), bounds=(-7, 7))
        assert found[trial].item() == pytest.approx(-best.fun, rel=1e-8)


@law
def test_its_slope_is_that_of_finite_differences(name: str) -> None:
    leaves = {k: t.requires_grad_() for k, t in residuals(2).items()}
    found = LAWS[name](1.0).log_profile(leaves)
    (slope,) = torch.autograd.grad(found.sum(), leaves["w"])
    for place in [(0, 0, 0), (1, 5, 4)]:
        ends = []
        for side in (1, -1):
            moved = leaves["w"].detach().clone()
            moved[place] += side * 1e-5
            ends.append(LAWS[name](1.0).log_profile({**leaves, "w": moved}).sum().item())
        assert slope[place].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)


@law
def test_a_perfect_guess_is_as_likely_as_under_the_least_scale(name: str) -> None:
    noise = LAWS[name](0.5)
    tree = {k: 0 * t for k, t in residuals(1).items()}
    assert noise.log_profile(tree).item() == pytest.approx(known(LAWS[name](0.5 * LEAST), tree, 0))


@law
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_scale_is_read_from_entries_of_which_some_are_no_noise(name: str, share: float) -> None:
    """The estimate is too large by what those cover up: at a share of 0.3 by 1 / 0.7, not by their size."""
    of = stats.norm if name == "normal" else stats.laplace
    noise = torch.from_numpy(of.ppf(torch.rand(100_000, generator=derive(0)).double().numpy()))
    signal = 100 * torch.randn(100_000, generator=derive(1)) * (torch.rand(100_000, generator=derive(2)) < share)
    found = LAWS[name].behind(0.2 * noise + signal).std / LAWS[name](0.2).std
    assert found == pytest.approx(1 / (1 - share), rel=0.04)


@law
def test_of_zeros_no_noise_is_read(name: str) -> None:
    assert LAWS[name].behind(torch.zeros(5)).std == LAWS[name].behind(torch.zeros(0)).std == 0
