import math
from typing import Literal

import pytest
import torch
from torch.distributions import Normal

from attacks.priors import Clip, GaussianPixels, ImageL2
from attacks.problem import Problem
from tests.attacks.priors.conftest import images
from tests.conftest import TASK


def test_inside_the_range_clipping_costs_nothing(problem: Problem) -> None:
    """K16."""
    inside = torch.stack([torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8), images(1, 2)[0].clamp(0, 1)])
    assert Clip(weight=3)(inside, problem).tolist() == [0, 0, 0]


def test_outside_it_is_pulled_back_in_proportion(problem: Problem) -> None:
    """K16: the gradient in the normalised pixel is 2 (u - clip(u)) std."""
    point = ((images(2, 1) - problem.mean) / problem.std).requires_grad_()
    pixels = problem.mean + problem.std * point
    (slope,) = torch.autograd.grad(Clip(weight=1)(pixels, problem).sum(), point)
    expected = 2 * (pixels - pixels.clamp(0, 1)) * TASK.std[0]
    assert expected.abs().max() > 0.1
    assert torch.allclose(slope, expected, atol=1e-7)


def test_clipping_sums_over_pixels_and_averages_over_images(problem: Problem) -> None:
    pixels = torch.full((1, 2, 1, 8, 8), 0.5)
    pixels[0, 0, 0, 0, :2] = torch.tensor([1.5, -2.0])
    assert Clip(weight=2)(pixels, problem).tolist() == [(0.25 + 4) / 2 * 2]


@pytest.mark.parametrize("units", ["normalised", "unit"])
def test_gaussian_pixels_agree_with_torch(problem: Problem, units: Literal["normalised", "unit"]) -> None:
    pixels = images(3, 2)
    measured = (pixels - TASK.mean[0]) / TASK.std[0] if units == "normalised" else pixels
    expected = -Normal(0.4, 0.3).log_prob(measured).flatten(1).sum(1)  # type: ignore[no-untyped-call]
    assert torch.allclose(GaussianPixels(mean=0.4, std=0.3, units=units)(pixels, problem), expected, rtol=1e-5)


def test_gaussian_noise_is_taken_away_by_the_right_share(problem: Problem) -> None:
    """K1 without a network: the most probable image of a noisy one is a weighted mean, of error 1/(1/t^2 + 1/s^2)."""
    tau, sigma = 0.3, 0.5
    noisy = images(1, 1).requires_grad_()
    prior = GaussianPixels(mean=0.5, std=tau, units="unit")
    best = (0.5 / tau**2 + noisy.detach() / sigma**2) / (1 / tau**2 + 1 / sigma**2)
    guess = best.clone().requires_grad_()
    cost = prior(guess, problem) + (guess - noisy.detach()).square().sum() / (2 * sigma**2)
    assert torch.autograd.grad(cost.sum(), guess)[0].abs().max() < 1e-5


def test_l2_is_the_length_of_the_normalised_image(problem: Problem) -> None:
    pixels = torch.full((1, 2, 1, 8, 8), TASK.mean[0])
    pixels[0, 0] += 3 * TASK.std[0]
    assert ImageL2(weight=1)(pixels, problem).item() == pytest.approx(3 * math.sqrt(64) / 2)


def test_l2_has_a_gradient_where_the_image_is_the_mean(problem: Problem) -> None:
    pixels = problem.mean.expand(1, 1, 1, 8, 8).clone().requires_grad_()
    assert bool((torch.autograd.grad(ImageL2(weight=1)(pixels, problem).sum(), pixels)[0] == 0).all())
