"""GIFD's own SSIM and LPIPS against loops over windows, and against lpips itself."""

import math

import pytest
import torch
from torch import Tensor

from fl_sim.core.seeds import derive
from fl_sim.core.types import Task
from fl_sim.metrics import gifd
from fl_sim.metrics.image import ssim
from fl_sim.metrics.perceptual import Lpips
from tests.metrics.test_perceptual import foreign, needs_data


def task(channels: int, side: int) -> Task:
    mean, std = (0.2, 0.5, 0.4)[:channels], (0.25, 0.3, 0.2)[:channels]
    return Task(image_shape=(channels, side, side), classes=10, mean=mean, std=std)


def pair(channels: int, side: int) -> tuple[Tensor, Tensor]:
    truth = torch.rand(2, channels, side, side, generator=derive(0))
    return (truth + 0.2 * torch.randn(truth.shape, generator=derive(1))).clamp(0, 1), truth


def slowly(x: Tensor, y: Tensor) -> float:
    """Of one channel ``(H, W)``, pixel by pixel; beyond the border there are zeros."""
    weights = {(i, j): math.exp(-(i * i + j * j) / 4.5) for i in range(-5, 6) for j in range(-5, 6)}
    total, height, width = sum(weights.values()), *x.shape
    found = []
    for row in range(height):
        for column in range(width):
            sums = [0.0] * 5
            for (i, j), weight in weights.items():
                if 0 <= row + i < height and 0 <= column + j < width:
                    a, b = x[row + i, column + j].item(), y[row + i, column + j].item()
                    sums = [s + weight / total * v for s, v in zip(sums, (a, b, a * a, b * b, a * b), strict=True)]
            mx, my, xx, yy, xy = sums
            top = (2 * mx * my + 1e-4) * (2 * (xy - mx * my) + 9e-4)
            found.append(top / ((mx**2 + my**2 + 1e-4) * (xx - mx**2 + yy - my**2 + 9e-4)))
    return sum(found) / len(found)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_every_window(channels: int) -> None:
    (guess, truth), about = pair(channels, 9), task(channels, 9)
    x, y = gifd.normalised(guess, about), gifd.normalised(truth, about)
    expected = [sum(slowly(x[i, c], y[i, c]) for c in range(channels)) / channels for i in range(2)]
    assert gifd.ssim(guess, truth, about).tolist() == pytest.approx(expected, abs=1e-4)


def test_it_is_another_figure_than_the_standard_one() -> None:
    """For the same images: the constants count for less where pixels span more."""
    (guess, truth), about = pair(1, 32), task(1, 32)
    assert (gifd.ssim(guess, truth, about) - ssim(guess, truth)).abs().min() > 0.002
    assert gifd.ssim(truth, truth, about).tolist() == pytest.approx([1, 1])


@needs_data
def test_lpips_is_fed_with_normalised_images() -> None:
    net, (guess, truth), about = Lpips.load(), pair(3, 64), task(3, 64)
    assert isinstance(net, Lpips)
    expected = foreign(gifd.normalised(guess, about), gifd.normalised(truth, about))
    torch.testing.assert_close(gifd.lpips(net, guess, truth, about), expected)
