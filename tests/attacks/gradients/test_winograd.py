"""Winograd's filtering against PyTorch's convolution and its derivatives."""

import pytest
import torch
from torch.nn.functional import conv2d

from attacks.gradients import winograd
from attacks.gradients.operators import Tiles
from tests.attacks.gradients.adjoints import assert_adjoint

SHAPES = [(1, 2, 8, 8, 3), (3, 2, 4, 12, 5)]


@pytest.mark.parametrize(("many", "channels", "height", "width", "out"), SHAPES)
def test_outputs_and_gradients(many: int, channels: int, height: int, width: int, out: int) -> None:
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(many, channels, height, width, generator=rng, dtype=torch.float64).requires_grad_()
    weight = torch.randn(out, channels, 3, 3, generator=rng, dtype=torch.float64)
    values = winograd.of_inputs(images)
    products = winograd.points(weight) @ values
    outputs = winograd.to_outputs(products, (many, -1, height, width))
    expected = conv2d(images, weight, padding=1)
    assert torch.allclose(outputs, expected, atol=1e-12)
    back = torch.randn(expected.shape, generator=rng, dtype=torch.float64)
    ours, at_products = torch.autograd.grad(outputs, [images, products], back)
    assert torch.allclose(ours, torch.autograd.grad(expected, images, back)[0], atol=1e-12)
    for trial, gradient in enumerate(winograd.of_weights(at_products, values, many)):
        alone = conv2d(images[trial, None].detach(), weight.requires_grad_(), padding=1)
        one = torch.autograd.grad(alone, weight, back[trial, None])[0]
        assert torch.allclose(gradient, one, atol=1e-12)
    assert torch.allclose(winograd.of_bias(at_products, many), back.sum((2, 3)), atol=1e-12)


def test_in_single_precision_the_error_is_rounding() -> None:
    rng = torch.Generator().manual_seed(0)
    images, weight = torch.randn(1, 64, 32, 32, generator=rng), torch.randn(64, 64, 3, 3, generator=rng) / 24
    exact = conv2d(images.double(), weight.double(), padding=1)
    ours = winograd.to_outputs(winograd.points(weight) @ winograd.of_inputs(images), (1, -1, 32, 32))
    assert ((ours - exact).norm() / exact.norm()).item() < 3e-6


def test_tiles_and_their_adjoint() -> None:
    assert_adjoint(Tiles((2, 3, 8, 12)), (2, 3, 8, 12))
