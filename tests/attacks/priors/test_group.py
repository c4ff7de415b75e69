import pytest
import torch

from attacks.priors import GroupConsistency
from attacks.problem import Problem
from tests.attacks.priors.conftest import images
from tests.conftest import TASK


def test_two_trials_are_half_their_difference_from_the_mean(problem: Problem) -> None:
    pixels = images(2, 3)
    half = (pixels[0] - pixels[1]) / TASK.std[0] / 2
    assert GroupConsistency(weight=2)(pixels, problem).tolist() == pytest.approx([2 * half.square().sum().item()] * 2)


def test_images_are_compared_by_place(problem: Problem) -> None:
    both = images(1, 2)
    swapped = torch.cat([both, both.flip(1)])
    assert GroupConsistency(weight=1)(swapped, problem).min() > 0
    assert GroupConsistency(weight=1)(torch.cat([both, both]), problem).tolist() == [0, 0]


def test_the_mean_may_as_well_be_a_constant(problem: Problem) -> None:
    """Summed over trials, what each does to the mean cancels."""
    pixels = images(4, 2).requires_grad_()
    (slope,) = torch.autograd.grad(GroupConsistency(weight=1)(pixels, problem).sum(), pixels)
    expected = 2 * (pixels - pixels.mean(0)) / TASK.std[0] ** 2
    assert torch.allclose(slope, expected, atol=1e-4)


def test_one_trial_agrees_with_itself(problem: Problem) -> None:
    assert GroupConsistency(weight=1)(images(1, 2), problem).item() == 0
