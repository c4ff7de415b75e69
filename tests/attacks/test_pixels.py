from dataclasses import replace

import pytest
import torch
from torch import nn

from attacks.problem import Problem
from attacks.variables import Pixels
from fl_sim.core.knowledge import Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.types import Observation


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
    assert Pixels(box=False).project(point, problem) is point


def test_free_labels_are_weights_and_survive_the_projection(problem: Problem) -> None:
    variables = Pixels(labels="joint")
    guess = variables.decode(variables.project(variables.start(problem, 3, derive(1)), problem), problem)
    assert guess.labels.shape == (3, 1, 10)
    assert torch.allclose(guess.labels.sum(-1), torch.ones(3, 1))


def test_granted_labels_are_not_searched(problem: Problem) -> None:
    granted = replace(problem, seen=replace(problem.seen, knowledge=Knowledge(labels=torch.tensor([2]))))
    assert sorted(Pixels(labels="joint").start(granted, 1, derive(1))) == ["pixels"]
    assert sorted(Pixels(labels="joint").start(problem, 1, derive(1))) == ["logits", "pixels"]
