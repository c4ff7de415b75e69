import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
from scipy import stats
from torch import nn

from attacks.likelihoods import DefenseDensity
from attacks.posterior import PosteriorSearch
from attacks.problem import Problem
from attacks.solvers import LBFGS
from attacks.variables import Pixels
from fl_sim.core.knowledge import Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.stochastic import draw_noise
from fl_sim.core.types import Batch, Observation, Reconstruction
from fl_sim.metrics.image import psnr
from tests.conftest import DRAW, observe, precoded


@pytest.fixture
def problem(seen: Observation, model: nn.Module) -> Problem:
    return Problem.of(seen, model, derive(0), "cpu")


def test_normal_starts_are_normal_in_normalised_space_and_all_different(problem: Problem) -> None:
    start = Pixels(init="normal").start(problem, 200, derive(1))["pixels"]
    assert start.shape == (200, 1, 1, 8, 8)
    assert start.std().item() == pytest.approx(1, abs=0.03)
    assert len(torch.unique(start.flatten(1), dim=0)) == 200


def test_uniform_starts_are_images(problem: Problem) -> None:
    variables = Pixels(init="uniform")
    images = variables.decode(variables.start(problem, 200, derive(1)), problem).images
    assert 0 <= images.min() < 0.01
    assert 0.99 < images.max() <= 1
    assert images.mean().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("variables", [Pixels(init="mean"), Pixels(spread=0)])
def test_a_start_without_spread_is_the_mean_colour(problem: Problem, variables: Pixels) -> None:
    images = variables.decode(variables.start(problem, 2, derive(1)), problem).images
    assert torch.equal(images, torch.full((2, 1, 1, 8, 8), 0.3))


def test_the_box_is_that_of_images(problem: Problem) -> None:
    point = {"pixels": torch.linspace(-5, 5, 64).view(1, 1, 1, 8, 8)}
    images = Pixels().decode(Pixels().project(point, problem), problem).images
    free = Pixels().decode(point, problem).images
    assert (images - free.clamp(0, 1)).abs().max() < 1e-6
    assert torch.equal(Pixels(box=False).project(point, problem)["pixels"], point["pixels"])


def test_free_labels_are_weights_and_survive_the_projection(problem: Problem) -> None:
    variables = Pixels(labels="joint")
    guess = variables.decode(variables.project(variables.start(problem, 3, derive(1)), problem), problem)
    assert guess.labels.shape == (3, 1, 10)
    assert torch.allclose(guess.labels.sum(-1), torch.ones(3, 1))
    assert guess.noise == {}


def test_granted_labels_are_not_searched(problem: Problem) -> None:
    granted = replace(problem, seen=replace(problem.seen, knowledge=Knowledge(labels=torch.tensor([2]))))
    assert sorted(Pixels(labels="joint").start(granted, 1, derive(1))) == ["pixels"]
    assert sorted(Pixels(labels="joint").start(problem, 1, derive(1))) == ["logits", "pixels"]


@pytest.fixture
def drawing(batch: Batch) -> Problem:
    """Of a client whose model drew four numbers for its image."""
    net = precoded(32, 4)
    return Problem.of(observe(net, batch), net, derive(0), "cpu")


def test_draws_are_searched_from_their_own_law_only_where_asked_for(drawing: Problem) -> None:
    variables = Pixels(noise="joint", spread=0)
    start = variables.start(drawing, 2000, derive(1))
    assert start[DRAW].shape == (2000, 1, 4)
    assert stats.kstest(start[DRAW].flatten().numpy(), "norm").pvalue > 0.001
    guess = variables.decode(variables.project(start, drawing), drawing)
    assert list(guess.noise) == [DRAW]
    assert torch.equal(guess.noise[DRAW], start[DRAW])
    at_mean = Pixels().start(drawing, 3, derive(1))
    assert sorted(at_mean) == ["pixels"]
    assert Pixels().decode(at_mean, drawing).noise == {}


def test_fresh_draws_are_anew_at_each_point_of_their_law_and_the_same_at_the_same(drawing: Problem) -> None:
    variables = Pixels(noise="fresh")
    first = variables.project(variables.start(drawing, 2000, derive(1)), drawing)
    moved = variables.project({**first, "pixels": first["pixels"] * 0.999}, drawing)
    assert stats.kstest(first[DRAW].flatten().numpy(), "norm").pvalue > 0.001
    assert abs(torch.corrcoef(torch.stack([first[DRAW].flatten(), moved[DRAW].flatten()]))[0, 1]) < 0.05
    alone = {name: value[7:8] for name, value in first.items()}
    assert torch.equal(variables.project(alone, drawing)[DRAW], first[DRAW][7:8])  # and of each trial by itself


def test_a_model_that_draws_nothing_has_no_draws_to_search(problem: Problem) -> None:
    point = Pixels(noise="joint", labels="joint").start(problem, 2, derive(1))
    assert sorted(point) == ["logits", "pixels"]
    same = Pixels(labels="joint").start(problem, 2, derive(1))
    assert all(torch.equal(point[k], same[k]) for k in point)


def test_searching_the_draw_too_explains_what_its_mean_cannot(drawing: Problem, batch: Batch) -> None:
    """The general form of K10, a maximum over images and draws together: it ends at the truth, and at its own price."""

    def search(noise: Literal["mean", "joint"]) -> Reconstruction:
        attack = PosteriorSearch(
            likelihood=DefenseDensity(std=0.01), variables=Pixels(noise=noise), solver=LBFGS(steps=100)
        )
        return attack(drawing.seen, drawing.model, derive(0))

    at_mean, joint = search("mean"), search("joint")
    entries = sum(t.numel() for t in drawing.target.values())
    (drawn,) = draw_noise(drawing.model, 1, derive(0, "order")).values()  # as the client drew it
    price = drawn.square().sum().item() / 2
    assert price > 0.1
    assert joint.loss == pytest.approx(entries * math.log(math.sqrt(2 * math.pi) * 0.01) + price, abs=0.05)
    assert joint.loss < at_mean.loss
    assert psnr(at_mean.images, batch.images).item() < 25
    assert psnr(joint.images, batch.images).item() > 50
