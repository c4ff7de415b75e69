from dataclasses import replace
from math import sqrt
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from attacks.priors import TotalVariation
from attacks.problem import Problem
from fl_sim.core.seeds import derive
from fl_sim.core.types import Observation, Task

PLAIN = Task(image_shape=(1, 8, 8), classes=10, mean=(0.0,), std=(1.0,))
Power = Literal[1, 2]
Reduction = Literal["mean", "sum"]


def cost(seen: Observation, model: nn.Module, prior: TotalVariation, images: Tensor, task: Task = PLAIN) -> list[float]:
    problem = Problem.of(seen, model, derive(0), "cpu")
    costs: list[float] = prior(images, replace(problem, seen=replace(seen, task=task))).tolist()
    return costs


def dot(row: int, column: int) -> Tensor:
    """A single pixel 1 on 0, ``(1, 1, 1, 8, 8)``."""
    image = torch.zeros(1, 1, 1, 8, 8)
    image[..., row, column] = 1
    return image


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize(
    ("row", "column", "periodic", "steps"),
    [(3, 4, True, 4), (0, 0, True, 4), (3, 4, False, 4), (0, 4, False, 3), (7, 7, False, 2)],
)
def test_a_single_pixel_costs_its_neighbours(
    seen: Observation, model: nn.Module, row: int, column: int, periodic: bool, steps: int, power: Power
) -> None:
    """K2's unit: 4 where the border wraps around."""
    prior = TotalVariation(weight=1, power=power, reduction="sum", periodic=periodic)
    assert cost(seen, model, prior, dot(row, column)) == [steps]


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_constant_images_cost_nothing(
    seen: Observation, model: nn.Module, reduction: Reduction, periodic: bool
) -> None:
    prior = TotalVariation(weight=3, reduction=reduction, periodic=periodic)
    assert cost(seen, model, prior, torch.full((2, 3, 1, 8, 8), 0.4)) == [0, 0]


@pytest.mark.parametrize(("periodic", "differences"), [(False, 7 * 8), (True, 8 * 8)])
def test_the_mean_is_the_sum_over_the_number_of_differences(
    seen: Observation, model: nn.Module, periodic: bool, differences: int
) -> None:
    images = torch.rand(2, 1, 1, 8, 8, generator=derive(0))
    whole = cost(seen, model, TotalVariation(weight=1, reduction="sum", periodic=periodic), images)
    mean = cost(seen, model, TotalVariation(weight=1, reduction="mean", periodic=periodic), images)
    assert mean == pytest.approx([c / differences for c in whole], rel=1e-5)


def test_differences_are_measured_in_normalised_space(seen: Observation, model: nn.Module) -> None:
    dark = replace(PLAIN, mean=(0.3,), std=(0.5,))
    assert cost(seen, model, TotalVariation(weight=1, reduction="sum"), dot(3, 3), dark) == pytest.approx([8])
    assert cost(seen, model, TotalVariation(weight=1, power=2, reduction="sum"), dot(3, 3), dark) == pytest.approx([16])


def test_a_batch_costs_the_average_of_its_images_and_each_trial_its_own(seen: Observation, model: nn.Module) -> None:
    prior = TotalVariation(weight=2, reduction="sum")
    both = torch.cat([dot(3, 3), torch.zeros(1, 1, 1, 8, 8)], dim=1)
    assert cost(seen, model, prior, torch.cat([both, torch.zeros_like(both)])) == [4, 0]


def slow(image: Tensor, prior: TotalVariation) -> float:
    """Pixel by pixel, of one image ``(8, 8)`` that needs no normalisation."""
    total = 0.0
    for i in range(8):
        for j in range(8):
            steps = []
            for k, m in ((i, j + 1), (i + 1, j)):
                inside = k < 8 and m < 8
                steps.append((image[k % 8, m % 8] - image[i, j]).item() if inside or prior.periodic else 0.0)
            if prior.isotropic:
                total += (steps[0] ** 2 + steps[1] ** 2 + prior.smoothing) ** (prior.power / 2)
            else:
                total += sum(abs(step) ** prior.power for step in steps)
    return total


@pytest.mark.parametrize("isotropic", [False, True])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("periodic", [False, True])
def test_agrees_with_a_loop(seen: Observation, model: nn.Module, periodic: bool, power: Power, isotropic: bool) -> None:
    prior = TotalVariation(
        weight=1, power=power, reduction="sum", periodic=periodic, isotropic=isotropic, smoothing=1e-3
    )
    images = torch.rand(2, 1, 1, 8, 8, generator=derive(0)) * 3 - 1
    expected = [slow(image[0, 0], prior) for image in images]
    assert cost(seen, model, prior, images) == pytest.approx(expected, rel=1e-5)
    if isotropic:
        mean = replace(prior, reduction="mean")
        assert cost(seen, model, mean, images) == pytest.approx([e / 64 for e in expected], rel=1e-5)


def test_an_isotropic_corner_costs_its_diagonal(seen: Observation, model: nn.Module) -> None:
    prior = TotalVariation(weight=1, reduction="sum", periodic=True, isotropic=True, smoothing=1e-12)
    assert cost(seen, model, prior, dot(3, 4)) == pytest.approx([2 + sqrt(2)], abs=1e-4)


def test_a_flat_image_has_a_gradient(seen: Observation, model: nn.Module) -> None:
    problem = Problem.of(seen, model, derive(0), "cpu")
    flat = torch.full((1, 1, 1, 8, 8), 0.4, requires_grad=True)
    for isotropic in (False, True):
        value = TotalVariation(weight=1, isotropic=isotropic)(flat, problem)
        (slope,) = torch.autograd.grad(value.sum(), flat)
        assert bool((slope == 0).all())
