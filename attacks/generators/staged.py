"""A small conditional convolutional generator, ours, trained by ``fl-sim train-prior --kind gan``."""

import itertools

import torch
from torch import Generator as Draws
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from attacks.generators.base import Generator, State

_SMALLEST = 4  # side at which images begin
_GROUPS = 8


class Staged(Generator):
    """Linear, then residual blocks that double the side until it is the image's; normalised by group, on condition.

    Stage 0 makes ``(width, s, s)`` of latent and class, stage 1 keeps its side, each further one doubles it. ``s`` is
    the image's side halved as often as it is at least 4 and whole: 28 begins at 7, 32 and 64 at 4. Latent and class
    also shift and scale every normalised feature (as in BigGAN, arXiv 1809.11096). Normalised by group, not by batch:
    rows do not touch, in training either.

    Args:
        image_shape: ``(C, H, W)``, square.
        classes: 0: unconditional.
        latents: Entries of the latent, N(0, 1).
        width: Channels of features, a multiple of 16; the last stage has half.
        embedding: Entries that a class becomes.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        latents: int = 64,
        width: int = 64,
        embedding: int = 32,
    ) -> None:
        super().__init__()
        self.image_shape, self.classes, self.latents = image_shape, classes, latents
        channels, side, _ = image_shape
        ups = doublings(side)
        self.side = side >> ups
        self.embed = nn.Linear(classes, embedding, bias=False) if classes else None
        given = latents + (embedding if classes else 0)
        widths = [width] * (1 + ups) + [width // 2]
        self.first = nn.Linear(given, width * self.side**2)
        self.blocks = nn.ModuleList(
            Block(before, after, given, doubles=i > 0) for i, (before, after) in enumerate(itertools.pairwise(widths))
        )
        self.last = nn.Sequential(
            nn.GroupNorm(_GROUPS, widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], channels, 3, 1, 1)
        )

    @property
    def depth(self) -> int:
        return 1 + len(self.blocks)

    def start(self, count: int, condition: Tensor, rng: Draws) -> State:
        latent = torch.randn(count, self.latents, generator=rng).to(condition.device)
        return {"latent": latent, **({"class": self.embed(condition)} if self.embed else {})}

    def stage(self, place: int, state: State) -> State:
        if place:
            condition = state["condition"]
            return {"condition": condition, "feature": self.blocks[place - 1](state["feature"], condition)}
        condition = torch.cat([state["latent"], state["class"]], 1) if self.embed else state["latent"]
        feature = self.first(condition).view(len(condition), -1, self.side, self.side)
        return {"condition": condition, "feature": feature}

    def image(self, state: State) -> Tensor:
        image: Tensor = self.last(state["feature"])
        return image.sigmoid()


class Block(nn.Module):
    """Two convolutions beside a shortcut, each after a conditional normalisation and SiLU."""

    def __init__(self, before: int, after: int, given: int, *, doubles: bool) -> None:
        super().__init__()
        self.doubles = doubles
        self.norms = nn.ModuleList([Conditional(before, given), Conditional(after, given)])
        self.convs = nn.ModuleList([nn.Conv2d(before, after, 3, 1, 1), nn.Conv2d(after, after, 3, 1, 1)])
        self.short = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, feature: Tensor, condition: Tensor) -> Tensor:
        beside = self._doubled(feature)
        feature = self.convs[0](self._doubled(silu(self.norms[0](feature, condition))))
        out: Tensor = self.short(beside) + self.convs[1](silu(self.norms[1](feature, condition)))
        return out

    def _doubled(self, feature: Tensor) -> Tensor:
        return interpolate(feature, scale_factor=2.0) if self.doubles else feature


class Conditional(nn.Module):
    """Group normalisation whose scale and shift depend on the condition."""

    def __init__(self, channels: int, given: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, channels, affine=False)
        self.scale, self.shift = nn.Linear(given, channels), nn.Linear(given, channels)

    def forward(self, feature: Tensor, condition: Tensor) -> Tensor:
        scale, shift = 1 + self.scale(condition), self.shift(condition)
        out: Tensor = self.norm(feature) * scale[:, :, None, None] + shift[:, :, None, None]
        return out


def doublings(side: int) -> int:
    """How often ``side`` can be halved, whole and at least 4."""
    count = 0
    while side % 2 == 0 and side // 2 >= _SMALLEST:
        side, count = side // 2, count + 1
    return count
