"""BigGAN-deep: residual bottlenecks, conditional batch norm, one self-attention (arXiv 1809.11096, appendix B)."""

import itertools
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Generator as Draws
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from attacks.generators.base import Generator, State

ATTENTION = 8  # blocks before it
_EPS = 1e-4


class Shape(NamedTuple):
    """Channels of a block, in units of the width, and whether it doubles the side."""

    doubles: bool
    before: int
    after: int


def _shapes(*widths: int) -> tuple[Shape, ...]:
    """Blocks that double and blocks that keep the side take turns."""
    return tuple(Shape(i % 2 == 1, a, b) for i, (a, b) in enumerate(itertools.pairwise(widths)))


SHAPES: Mapping[int, tuple[Shape, ...]] = MappingProxyType(
    {
        128: _shapes(16, 16, 16, 16, 8, 8, 4, 4, 2, 2, 1),
        256: _shapes(16, 16, 16, 16, 8, 8, 8, 8, 4, 4, 2, 2, 1),
        512: _shapes(16, 16, 16, 16, 8, 8, 8, 8, 4, 4, 2, 2, 1, 1, 1),
    }
)
"""Blocks by side of the image."""


class BigGANDeep(Generator):
    """Latent and class to image by residual blocks; the self-attention after the eighth is a stage of its own.

    Latent and embedded class, the condition, make a feature of side 4 and shift and scale every normalised feature;
    after stage 0 the condition is carried along, and only features change. Stage 0 ends after the first block, so that
    the features are those that GIFD searches (arXiv 2308.04699; ``2048x4x4`` first at the published width).

    Spectral norm is no part of it: the public weights are divided by theirs once, when they are converted. Statistics
    of batch norm are those of truncation 1, which all attacks use.

    Args:
        resolution: Which of the published networks: 128, 256 or 512, the side of its images.
        classes: It was trained on 1000.
        latents: Entries of the latent, N(0, 1), and of an embedded class.
        width: Channels of the last feature, a multiple of 4.
        smallest: Side of the first feature. Published are 4; with less, all sides shrink alike.
    """

    def __init__(
        self, resolution: int = 256, classes: int = 1000, latents: int = 128, width: int = 128, smallest: int = 4
    ) -> None:
        super().__init__()
        if resolution not in SHAPES:
            raise ValueError(f"expected resolution 128, 256 or 512, got {resolution}")
        shapes, given = SHAPES[resolution], 2 * latents
        side = smallest << sum(shape.doubles for shape in shapes)
        self.image_shape, self.classes, self.latents, self.smallest = (3, side, side), classes, latents, smallest
        self.embed = nn.Linear(classes, latents, bias=False)
        self.first = nn.Linear(given, shapes[0].before * width * smallest**2)
        self.layers = nn.ModuleList(Block(s.before * width, s.after * width, given, doubles=s.doubles) for s in shapes)
        self.layers.insert(ATTENTION, Attention(shapes[ATTENTION].before * width))
        self.norm = nn.BatchNorm2d(width, _EPS)
        self.last = nn.Conv2d(width, 3, 3, padding=1)
        self.eval()

    @property
    def depth(self) -> int:
        return len(self.layers)

    def start(self, count: int, condition: Tensor, rng: Draws) -> State:
        latent = torch.randn(count, self.latents, generator=rng).to(condition.device)
        return {"latent": latent, "class": self.embed(condition)}

    def stage(self, place: int, state: State) -> State:
        if place:
            condition, feature = state["condition"], state["feature"]
        else:
            condition = torch.cat([state["latent"], state["class"]], 1)
            feature = self.first(condition).view(len(condition), -1, self.smallest, self.smallest)
        return {"condition": condition, "feature": self.layers[place](feature, condition)}

    def image(self, state: State) -> Tensor:
        painted: Tensor = self.last(self.norm(state["feature"]).relu())
        return (painted.tanh() + 1) / 2


class Block(nn.Module):
    """Four convolutions, the middle ones of a quarter of the channels, beside a shortcut without weights.

    Where channels become fewer, the shortcut drops the last ones.
    """

    def __init__(self, before: int, after: int, given: int, *, doubles: bool) -> None:
        super().__init__()
        self.doubles, self.after = doubles, after
        middle = before // 4
        self.norms = nn.ModuleList(Conditional(c, given) for c in (before, middle, middle, middle))
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(before, middle, 1),
                nn.Conv2d(middle, middle, 3, padding=1),
                nn.Conv2d(middle, middle, 3, padding=1),
                nn.Conv2d(middle, after, 1),
            ]
        )

    def forward(self, feature: Tensor, condition: Tensor) -> Tensor:
        beside = self._doubled(feature[:, : self.after])
        for place, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=True)):
            feature = norm(feature, condition).relu()
            feature = conv(self._doubled(feature) if place == 1 else feature)
        return beside + feature

    def _doubled(self, feature: Tensor) -> Tensor:
        return interpolate(feature, scale_factor=2.0) if self.doubles else feature


class Conditional(nn.Module):
    """Normalisation by stored statistics; scale and shift are linear in the condition."""

    mean: Tensor
    var: Tensor

    def __init__(self, channels: int, given: int) -> None:
        super().__init__()
        self.scale, self.shift = (nn.Linear(given, channels, bias=False) for _ in range(2))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))

    def forward(self, feature: Tensor, condition: Tensor) -> Tensor:
        scale = (1 + self.scale(condition)) * (self.var + _EPS).rsqrt()
        shift = self.shift(condition) - self.mean * scale
        out: Tensor = feature * scale[:, :, None, None] + shift[:, :, None, None]
        return out


class Attention(nn.Module):
    """Every place asks the four times fewer places of a pooled feature (SAGAN, arXiv 1805.08318)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 8
        self.query, self.key = nn.Conv2d(channels, inner, 1, bias=False), nn.Conv2d(channels, inner, 1, bias=False)
        self.value = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.out = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, feature: Tensor, condition: Tensor) -> Tensor:
        del condition
        query = self.query(feature).flatten(2)
        key, value = (max_pool2d(asked(feature), 2).flatten(2) for asked in (self.key, self.value))
        attended = torch.einsum("mcp,mcq->mpq", query, key).softmax(-1)
        seen = torch.einsum("mcq,mpq->mcp", value, attended).view(len(feature), -1, *feature.shape[2:])
        out: Tensor = feature + self.weight * self.out(seen)
        return out
