"""Stages of the published sizes, on the device that allocates nothing."""

import itertools

import pytest
import torch

from attacks.generators import Generator
from attacks.generators.biggan import BigGANDeep
from attacks.generators.stylegan2 import StyleGAN2
from attacks.generators.table import table

WIDTHS = (512, 512, 512, 512, 512, 256, 128, 64, 32)


def parameters(generator: Generator) -> int:
    return sum(weight.numel() for weight in generator.parameters())


@pytest.mark.parametrize(
    ("resolution", "features"),
    [
        (128, "2048x4 2048x8 2048x8 1024x16 1024x16 512x32 512x32 256x64 256x64 256x64"),
        (256, "2048x4 2048x8 2048x8 1024x16 1024x16 1024x32 1024x32 512x64 512x64 512x64 256x128 256x128"),
    ],
)
def test_stages_of_biggan_deep_are_those_that_gifd_searches(resolution: int, features: str) -> None:
    with torch.device("meta"):
        generator = BigGANDeep(resolution)
    latent, *later = table(generator)
    assert dict(latent.shapes) == {"latent": (128,)}
    assert [f"{c}x{side}" for c, side, _ in (stage.shapes["feature"] for stage in later)] == features.split()
    assert generator.image_shape == (3, resolution, resolution)
    assert isinstance(generator.layers[8], torch.nn.Module)
    assert not hasattr(generator.layers[8], "norms"), "the self-attention"


def test_biggan_deep_256_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        generator = BigGANDeep(256)
    unused = (128 - 3) * (128 * 9 + 1)  # outputs of the last convolution that the port makes and drops
    assert (parameters(generator) + unused) / 1e6 == pytest.approx(55.9, abs=0.05)


def test_stages_of_stylegan2_are_those_that_gifd_searches() -> None:
    with torch.device("meta"):
        generator = StyleGAN2((3, 1024, 1024), WIDTHS)
    stages = table(generator)
    assert len(stages) == 9
    assert stages[0].shapes["styles"] == (18, 512)
    assert "feature" not in stages[0].shapes
    assert [stage.numel["feature"] for stage in stages[1:5]] == [8192, 32768, 131072, 524288]
    maps = [[int(name.split(".")[1]) for name in stage.shapes if name.startswith("noise")] for stage in stages]
    assert maps[:3] == [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5, 6], [3, 4, 5, 6, 7, 8]]
    assert maps[8] == [15, 16]
    assert stages[0].shapes["noise.4"] == (1, 16, 16)


def test_stylegan2_for_ffhq_has_the_parameters_of_config_f() -> None:
    pairs = [(WIDTHS[0], WIDTHS[0]), *((a, b) for pair in itertools.pairwise(WIDTHS) for a, b in (pair, pair[1:] * 2))]
    convs = sum(9 * a * b + b + 1 + 513 * a for a, b in pairs)
    paints = sum(3 * c + 3 + 513 * c for c in WIDTHS)
    with torch.device("meta"):
        assert parameters(StyleGAN2((3, 1024, 1024), WIDTHS)) == 8 * 513 * 512 + 16 * 512 + convs + paints
    assert (8 * 513 * 512 + 16 * 512 + convs + paints) / 1e6 == pytest.approx(30.37, abs=0.005), "as is quoted for it"
