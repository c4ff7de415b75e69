"""What every prior owes, whatever it believes. Runs on each name in the registry."""

import pickle
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from attacks.priors import PRIORS, Density, Prior
from attacks.problem import Problem
from fl_sim import models
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Protocol
from tests.attacks.priors.conftest import images
from tests.conftest import TASK, observe

ARGUMENTS: Mapping[str, dict[str, Any]] = {
    "tv": {},
    "clip": {},
    "gaussian": {"mean": 0.1, "std": 0.7},
    "l2": {},
    "batchnorm": {},
    "client_statistics": {},
    "group": {},
    "mixture": {},
    "vae": {},
    "dist_gaussian": {},
    "dist_gmm": {"dim": 64},
}
COUPLED = {"group"}  # trials with each other
JOINT = {"batchnorm", "client_statistics"}  # images of a batch with each other


@pytest.fixture(params=sorted(PRIORS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def prior(name: str, mixture_file: str, vae_file: str) -> Prior:
    paths = {"mixture": {"path": mixture_file}, "vae": {"path": vae_file}}
    return PRIORS[name](weight=0.5, **ARGUMENTS[name], **paths.get(name, {}))


@pytest.fixture
def problem() -> Problem:
    """Of a model with batch norm that trains, whose statistics are not those it was born with."""
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 10))
    net[1].running_mean.copy_(torch.tensor([0.3, -0.2, 0.1]))  # type: ignore[operator]
    with_norm = models.Model(models.Normalise(TASK.mean, TASK.std), net).eval()
    batch, protocol = Batch(images(1, 2)[0], torch.tensor([1, 2])), Protocol(batch_size=2, batchnorm="train")
    return Problem.of(observe(with_norm, batch, protocol), with_norm, derive(0), "cpu")


def test_costs_are_one_a_trial_and_have_gradients(prior: Prior, problem: Problem) -> None:
    pixels = images(3, 2).requires_grad_()
    cost = prior(pixels, problem)
    assert cost.shape == (3,)
    assert cost.dtype == torch.float32
    (slope,) = torch.autograd.grad(cost.sum(), pixels)
    assert bool(slope.isfinite().all())
    assert bool((slope.flatten(1) != 0).any(1).all())


def test_far_off_images_have_gradients_too(prior: Prior, problem: Problem) -> None:
    pixels = (100 * images(2, 2)).requires_grad_()
    cost = prior(pixels, problem)
    assert bool(cost.isfinite().all())
    assert bool(torch.autograd.grad(cost.sum(), pixels)[0].isfinite().all())


def test_trials_do_not_touch_each_other(name: str, prior: Prior, problem: Problem) -> None:
    pixels = images(3, 2)
    alone = torch.cat([prior(pixels[i : i + 1], problem) for i in range(3)])
    assert torch.allclose(prior(pixels, problem), alone, rtol=1e-5) is (name not in COUPLED)


def test_a_density_is_summed_over_the_batch_and_anything_else_averaged(
    name: str, prior: Prior, problem: Problem
) -> None:
    if name in COUPLED | JOINT:
        pytest.skip("of the whole batch")
    pixels = images(2, 4)
    alone = torch.stack([prior(pixels[:, i : i + 1], problem) for i in range(4)])
    whole = alone.sum(0) if isinstance(prior, Density) else alone.mean(0)
    assert torch.allclose(prior(pixels, problem), whole, rtol=1e-5)


def test_the_weight_multiplies(name: str, prior: Prior, problem: Problem, mixture_file: str, vae_file: str) -> None:
    paths = {"mixture": {"path": mixture_file}, "vae": {"path": vae_file}}
    double = PRIORS[name](weight=1.0, **ARGUMENTS[name], **paths.get(name, {}))
    assert torch.allclose(double(images(2, 2), problem), 2 * prior(images(2, 2), problem))


def test_the_same_again_and_after_travel(prior: Prior, problem: Problem) -> None:
    again = pickle.loads(pickle.dumps(prior))  # noqa: S301  our own bytes: as Ray sends it
    assert again == prior
    assert hash(again) == hash(prior)
    assert torch.equal(again(images(2, 2), problem), prior(images(2, 2), problem))


def test_every_prior_is_listed_here() -> None:
    assert sorted(ARGUMENTS) == sorted(PRIORS)
