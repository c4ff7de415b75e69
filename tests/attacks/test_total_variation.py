from dataclasses import replace
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
