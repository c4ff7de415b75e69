"""The exact priors against draws of their worlds, which ``attacks`` itself may not see."""

import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from attacks.priors import Density, dist_gaussian, dist_gmm
from attacks.problem import Problem
from fl_sim.core.types import Task
from fl_sim.data import Dataset, Source, load


def costs(prior: Density, data: Dataset, problem: Problem) -> Tensor:
    """``-log p`` of each training image."""
    task = Task(image_shape=data.image_shape, classes=data.classes, mean=data.mean, std=data.std)
    here = replace(problem, seen=replace(problem.seen, task=task))
    return prior(data.train.images[:, None], here)


def vectors(data: Dataset) -> Tensor:
    return ((data.train.images - data.mean[0]) / data.std[0]).flatten(1)


@pytest.mark.parametrize("side", [7, 12])
def test_dist_gaussian_is_calibrated(problem: Problem, side: int) -> None:
    """As K13: the mean of ``-log p`` over draws is ``d/2 (ln 2 pi + 1)``, with standard deviation ``sqrt(d/2 / n)``."""
    d, cost = side**2, costs(dist_gaussian(), load(Source(name="dist_gaussian", image_size=side)), problem)
    expected = d / 2 * (math.log(2 * math.pi) + 1)
    assert abs(cost.mean().item() - expected) < 4 * math.sqrt(d / 2 / len(cost))
    assert cost.std().item() == pytest.approx(math.sqrt(d / 2), rel=0.1)


def test_dist_gmm_agrees_with_torch(problem: Problem) -> None:
    data = load(Source(name="dist_gmm", image_size=7))
    means = torch.zeros(4, 49)
    means[0, 0], means[1, 0], means[2, 1], means[3, 1] = 2, -2, 2, -2
    world = MixtureSameFamily(Categorical(torch.ones(4)), MultivariateNormal(means, torch.eye(49)))
    expected = -world.log_prob(vectors(data))  # type: ignore[no-untyped-call]
    assert torch.allclose(costs(dist_gmm(49), data, problem), expected, rtol=1e-4)


def test_dist_gmm_is_what_the_images_are_drawn_from(problem: Problem) -> None:
    """Fresh draws of the prior cost the same on average; a plain Gaussian of the same moments costs more."""
    data = load(Source(name="dist_gmm"))
    cost = costs(dist_gmm(), data, problem)
    fresh = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0)) + torch.tensor([2.0, 0.0])
    away = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    two = torch.logsumexp(-(fresh[:, None] - away).square().sum(2) / 2, 1) - math.log(4) - math.log(2 * math.pi)
    expected = -two.mean().item() + 62 / 2 * (math.log(2 * math.pi) + 1)
    assert abs(cost.mean().item() - expected) < 4 * cost.std().item() / math.sqrt(len(cost))


def test_a_mixture_of_one_pixel_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"dim\n.*greater than or equal to 2"):
        dist_gmm(dim=1)
