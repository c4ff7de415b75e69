"""StyleGAN2's operators against their definitions, and how its searches start."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, leaky_relu, pad

from attacks.generators.stylegan2 import Codes, Convolution, StyleGAN2, _painted_larger, blurred
from fl_sim.core.seeds import derive

LINE = torch.tensor([1.0, 3, 3, 1], dtype=torch.float64) / 8
FILTER = torch.outer(LINE, LINE)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=derive(seed), dtype=torch.float64)


def spread(image: Tensor) -> Tensor:
    """Zeros between pixels, ``2n - 1``."""
    larger = image.new_zeros(*image.shape[:2], 2 * image.shape[2] - 1, 2 * image.shape[3] - 1)
    larger[:, :, ::2, ::2] = image
    return larger


def each_filtered(image: Tensor) -> Tensor:
    channels = [conv2d(image[:, c : c + 1], 4 * FILTER[None, None]) for c in range(image.shape[1])]
    return torch.cat(channels, 1)


def one_by_one(conv: Convolution, feature: Tensor, style: Tensor, noise: Tensor) -> Tensor:
    """arXiv 1912.04958, equations 1 and 3: for each row the weights are made, then used."""
    rows = []
    for mine, scale, map_ in zip(feature, conv.affine(style), noise, strict=True):
        weight = conv.weight * scale[None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if conv.doubles:
            made = each_filtered(pad(conv2d(pad(spread(mine[None]), [2] * 4), weight.flip(2, 3)), [1] * 4))
        else:
            made = conv2d(mine[None], weight, padding=1)
        rows.append(made + conv.noise * map_ + conv.bias[None, :, None, None])
    return leaky_relu(torch.cat(rows), 0.2) * 2**0.5


@pytest.mark.parametrize("doubles", [False, True])
def test_a_convolution_is_the_one_of_each_rows_own_weights(doubles: bool) -> None:
    conv = Convolution(3, 4, 5, doubles=doubles).double()
    side = 12 if doubles else 6
    feature, style, noise = drawn(2, 3, 6, 6), drawn(2, 5), drawn(2, 1, side, side)
    made = conv(feature, style, noise)
    assert made.shape == (2, 4, side, side)
    assert torch.allclose(made, one_by_one(conv, feature, style, noise))


def test_resampling_is_zeros_between_pixels_and_a_filter() -> None:
    image = drawn(2, 3, 5, 5)
    assert torch.allclose(_painted_larger(image), each_filtered(pad(spread(image), (2, 2, 2, 2))))
    assert torch.allclose(blurred(image), each_filtered(pad(image, (1, 1, 1, 1))))
    flat = _painted_larger(torch.ones(1, 1, 8, 8))[..., 2:-2, 2:-2]
    assert torch.allclose(flat, torch.ones_like(flat)), "a flat image stays as bright"


def small(codes: Codes, classes: int = 0) -> StyleGAN2:
    return StyleGAN2((3, 8, 8), (4, 4), classes, latents=3, styles=5, mapping=2, codes=codes).requires_grad_(
        requires_grad=False
    )


def test_styles_are_one_or_one_for_each_convolution() -> None:
    one, each = (small(codes).start(2, torch.zeros(2, 0), derive(0))["styles"] for codes in ("one", "each"))
    assert one.shape == each.shape == (2, 4, 5)
    assert torch.equal(one, one[:, :1].expand_as(one))
    assert all(not torch.equal(each[:, 0], each[:, i]) for i in range(1, 4))


def test_the_gaussian_of_styles_is_drawn_before_their_activation() -> None:
    network = small("gaussian")
    network.load_state_dict(
        {**network.state_dict(), "fit_mean": torch.arange(5.0) - 2, "fit_std": torch.full((5,), 0.5)}
    )
    styles = network.start(5000, torch.zeros(5000, 0), derive(0))["styles"]
    before = leaky_relu(styles, 5.0).flatten(0, 1)
    assert torch.allclose(before.mean(0), network.fit_mean, atol=0.03)
    assert torch.allclose(before.std(0), network.fit_std, atol=0.02)


def test_classes_decide_styles() -> None:
    network = small("each", classes=2)
    first, second = (network.start(1, torch.eye(2)[c : c + 1], derive(0)) for c in range(2))
    assert not torch.allclose(first["styles"], second["styles"])
    assert torch.equal(first["noise.0"], second["noise.0"])


def test_a_mapping_scales_its_weights_as_it_runs() -> None:
    """Weights of about 100, used at 1 / 100: one step size suits them and the convolutions."""
    network = small("one")
    weights = [weight for name, weight in network.mapping.named_parameters() if name.endswith("weight")]
    assert weights[0].std() > 50
    latent = drawn(4, 3).float()
    unit = latent / latent.square().mean(1, keepdim=True).sqrt()
    first = leaky_relu(unit @ weights[0].T * 0.01 / 3**0.5, 0.2) * 2**0.5
    second = leaky_relu(first @ weights[1].T * 0.01 / 5**0.5, 0.2) * 2**0.5
    assert torch.allclose(network.styled(latent, torch.zeros(4, 0)), second, atol=1e-5)
