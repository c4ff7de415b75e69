"""Our columns, means and gradients of weights against PyTorch's own."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, unfold

from attacks.gradients.convolution import Convolution, columns_of, of_weights
from attacks.gradients.layers import Averaged, Tape, lowered
from attacks.gradients.operators import Means
from tests.attacks.gradients.adjoints import assert_adjoint

SIZE = (6, 3, 9, 8)
FORMS = [
    ((3, 3), (1, 1), (1, 1), (1, 1)),
    ((5, 5), (2, 2), (2, 2), (1, 1)),
    ((3, 2), (2, 1), (0, 2), (2, 3)),
    ((1, 1), (2, 2), (0, 0), (1, 1)),
]


def layer_of(
    form: tuple[tuple[int, ...], ...], rng: torch.Generator, dtype: torch.dtype = torch.float64
) -> Convolution:
    kernel, stride, padding, dilation = form
    weight = torch.randn(4, SIZE[1], *kernel, generator=rng, dtype=dtype)
    return Convolution(weight, SIZE, stride, padding, dilation)


@pytest.mark.parametrize("form", FORMS)
def test_columns_are_unfold_s_and_adjoints_are_adjoint(form: tuple[tuple[int, ...], ...]) -> None:
    rng = torch.Generator().manual_seed(0)
    layer, images = layer_of(form, rng), torch.randn(SIZE, generator=rng, dtype=torch.float64)
    kernel, stride, padding, dilation = form
    for inputs in (images, images.transpose(2, 3).contiguous().transpose(2, 3)):
        assert torch.equal(columns_of(layer).forward(inputs), unfold(inputs, kernel, dilation, padding, stride))
    assert_adjoint(columns_of(layer), SIZE)
    assert_adjoint(layer, SIZE)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("trials", [1, 2, 6])
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_gradients_of_weights_and_their_slopes(
    form: tuple[tuple[int, ...], ...], trials: int, dtype: torch.dtype, rounding: float
) -> None:
    rng = torch.Generator().manual_seed(0)
    layer, images = layer_of(form, rng, dtype), torch.randn(SIZE, generator=rng, dtype=dtype).requires_grad_()
    back = torch.randn(layer.forward(images.detach()).shape, generator=rng, dtype=dtype).requires_grad_()
    each = SIZE[0] // trials
    weights = [layer.weight.clone().requires_grad_() for _ in range(trials)]
    outs = [
        conv2d(x, w, None, layer.stride, layer.padding, layer.dilation)
        for x, w in zip(torch.split(images, each), weights, strict=True)
    ]
    slow = torch.stack(
        [
            torch.autograd.grad(o, w, b, create_graph=True)[0]
            for o, w, b in zip(outs, weights, torch.split(back, each), strict=True)
        ]
    )
    fast = of_weights(layer, images, back, trials)
    assert torch.allclose(fast, slow, atol=rounding)
    slopes = torch.randn(slow.shape, generator=rng, dtype=dtype)
    ours, expected = (torch.autograd.grad(g, (images, back), slopes) for g in (fast, slow))
    assert all(torch.allclose(a, b, atol=rounding) for a, b in zip(ours, expected, strict=True))


@pytest.mark.parametrize("block", [(2, 2), (3, 2), (3, 4)])
def test_means_are_average_pooling(block: tuple[int, int]) -> None:
    images = torch.rand(SIZE, dtype=torch.float64)[:, :, : 9 // block[0] * block[0]]
    means = Means(tuple(images.shape), block)
    assert torch.allclose(means.forward(images), avg_pool2d(images, block), atol=1e-12)
    assert_adjoint(means, tuple(images.shape))


def test_pooling_is_by_means_where_blocks_tile_and_the_layer_s_own_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, by_means, forward = lowered(nn.AvgPool2d(2), "pool", Tape()), list[tuple[int, ...]](), Means.forward

    def noted(self: Means, inputs: Tensor) -> Tensor:
        by_means.append(tuple(inputs.shape))
        return forward(self, inputs)

    monkeypatch.setattr(Means, "forward", noted)
    assert isinstance(ours, Averaged)
    for size in ((8, 8), (9, 8)):
        images = torch.rand(2, 3, *size)
        assert torch.allclose(ours(images), avg_pool2d(images, 2))
    assert by_means == [(2, 3, 8, 8)]
    for layer in (nn.AvgPool2d(3, 2), nn.AvgPool2d(2, padding=1), nn.AvgPool2d(2, divisor_override=3)):
        assert lowered(layer, "pool", Tape()) is None
