"""StyleGAN2 in plain torch: modulated convolutions, noise maps, an image painted at every resolution."""

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator as Draws
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu, linear, pad

from attacks.generators.base import Generator, State

Codes = Literal["one", "each", "gaussian"]

_SMALLEST = 4  # side at which images begin
_SLOPE, _GAIN = 0.2, math.sqrt(2)  # of the activation
_RATE = 0.01  # of the mapping's weights, to those of the rest, while it was trained
_EPS = 1e-8
_AHEAD = 5  # noise maps searched at stage 0; two more at each further one


class StyleGAN2(Generator):
    """Latent to styles, styles and noise to an image (arXiv 1912.04958; conditional in ADA's, arXiv 2006.06676).

    Stage 0 is the constant, one convolution and what it paints, at a side of 4; each further one doubles the side by
    two convolutions. The state carries the image painted so far, ``skip``, along: without it an image jumps where a
    search goes on to the next stage, as it does in GIFD's code. All of it runs in full precision, without the clamp of
    activations that ADA's half precision needs.

    Searched are the styles of every convolution and noise maps, and from stage 1 on the feature (ILO, arXiv
    2102.07364; GIFD, arXiv 2308.04699). Of the maps with an index below ``5 + 2 place`` those that went into the
    feature already are left out: they change nothing.

    Args:
        image_shape: ``(C, H, W)``, its side 4 times a power of 2.
        channels: Of the features, from side 4 on: ``(512, 512, 512, 512, 512, 256, 128, 64, 32)`` at 1024.
        classes: 0: unconditional.
        latents: Entries of the latent, N(0, 1).
        styles: Entries of a style.
        mapping: Layers from latent to style.
        codes: How a start is drawn: ``one`` style for all convolutions, as it was trained and as GIAS starts;
            a style of a latent of its own for ``each``; each from the ``gaussian`` fitted to styles before their
            activation, as GIFD starts (PULSE, arXiv 2003.03808).
    """

    fit_mean: Tensor
    fit_std: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        channels: Sequence[int],
        classes: int = 0,
        latents: int = 512,
        styles: int = 512,
        mapping: int = 8,
        codes: Codes = "one",
    ) -> None:
        super().__init__()
        self.image_shape, self.classes = image_shape, classes
        self.latents, self.styles, self.codes = latents, styles, codes
        self.embed = Equalised(classes, styles) if classes else None
        widths = [latents + (styles if classes else 0)] + [styles] * mapping
        self.mapping = nn.ModuleList(Equalised(a, b, rate=_RATE) for a, b in itertools.pairwise(widths))
        self.const = _drawn(channels[0], _SMALLEST, _SMALLEST)
        first, colours = Block(None, channels[0], image_shape[0], styles), image_shape[0]
        self.blocks = nn.ModuleList([first, *(Block(a, b, colours, styles) for a, b in itertools.pairwise(channels))])
        if codes == "gaussian":
            self.register_buffer("fit_mean", torch.zeros(styles))
            self.register_buffer("fit_std", torch.ones(styles))

    @property
    def depth(self) -> int:
        return len(self.blocks)

    @property
    def maps(self) -> int:
        """How many noise maps there are; with one style more than convolutions, for the last image."""
        return 2 * self.depth - 1

    def styled(self, latent: Tensor, condition: Tensor) -> Tensor:
        """Styles ``(M, styles)`` of latents ``(M, latents)`` and weights of classes ``(M, classes)``."""
        style = _unit(latent)
        if self.embed is not None:
            style = torch.cat([style, _unit(self.embed(condition))], 1)
        for layer in self.mapping:
            style = _activated(layer(style))
        return style

    def start(self, count: int, condition: Tensor, rng: Draws) -> State:
        """As the contract. Noise maps are drawn too: the fixed ones of public files are a draw of the same law."""
        layers = self.maps + 1
        entries = self.styles if self.codes == "gaussian" else self.latents
        draws = torch.randn(count, 1 if self.codes == "one" else layers, entries, generator=rng)
        draws = draws.to(condition.device)
        if self.codes == "gaussian":
            styles = leaky_relu(self.fit_std * draws + self.fit_mean, _SLOPE)
        else:
            each = condition.repeat_interleave(draws.shape[1], 0)
            styles = self.styled(draws.flatten(0, 1), each).view(count, -1, self.styles).expand(-1, layers, -1)
        sides = [_SMALLEST << (i + 1) // 2 for i in range(self.maps)]
        noise = [torch.randn(count, 1, side, side, generator=rng).to(condition.device) for side in sides]
        return {"styles": styles, **{f"noise.{i}": each for i, each in enumerate(noise)}}

    def searched(self, place: int) -> tuple[str, ...]:
        names = [f"noise.{i}" for i in range(max(0, 2 * place - 1), min(_AHEAD + 2 * place, self.maps))]
        return (*(("feature",) if place else ()), "styles", *names)

    def stage(self, place: int, state: State) -> State:
        styles = state["styles"][:, max(0, 2 * place - 1) : 2 * place + 2]
        used = [f"noise.{i}" for i in range(max(0, 2 * place - 1), 2 * place + 1)]
        feature = state["feature"] if place else self.const.expand(len(styles), -1, -1, -1)
        feature, painted = self.blocks[place](feature, styles, [state[name] for name in used])
        skip = _painted_larger(state["skip"]) + painted if place else painted
        return {**{k: v for k, v in state.items() if k not in used}, "feature": feature, "skip": skip}

    def image(self, state: State) -> Tensor:
        """What was painted, -1 to 1 read as 0 to 1; the little that lies outside is cut off."""
        return ((state["skip"] + 1) / 2).clamp(0, 1)


class Block(nn.Module):
    """A convolution that doubles the side, one that keeps it, and one to colours; the first block has no doubling."""

    def __init__(self, before: int | None, after: int, colours: int, styles: int) -> None:
        super().__init__()
        doubling = [] if before is None else [Convolution(before, after, styles, doubles=True)]
        self.convs = nn.ModuleList([*doubling, Convolution(after, after, styles, doubles=False)])
        self.paint = Paint(after, colours, styles)

    def forward(self, feature: Tensor, styles: Tensor, noise: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        *own, last = styles.unbind(1)
        for conv, style, mine in zip(self.convs, own, noise, strict=True):
            feature = conv(feature, style, mine)
        return feature, self.paint(feature, last)


class Convolution(nn.Module):
    """A 3x3 convolution whose weights are scaled by style and brought to norm 1 an output; then noise, activation.

    Scales go to the input and the norm to the output: the same, and one convolution serves all rows.
    """

    def __init__(self, before: int, after: int, styles: int, *, doubles: bool) -> None:
        super().__init__()
        self.doubles = doubles
        self.affine = Equalised(styles, before, bias=1.0)
        self.weight = _drawn(after, before, 3, 3)
        self.noise = nn.Parameter(torch.full((), 0.1))  # training starts from 0, at which maps would do nothing
        self.bias = nn.Parameter(torch.zeros(after))

    def forward(self, feature: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        scale = self.affine(style)
        norm = (linear(scale.square(), self.weight.square().sum((2, 3))) + _EPS).rsqrt()
        feature = feature * scale[:, :, None, None]
        if self.doubles:
            feature = blurred(conv_transpose2d(feature, self.weight.transpose(0, 1), stride=2))
        else:
            feature = conv2d(feature, self.weight, padding=1)
        return _activated(feature * norm[:, :, None, None] + self.noise * noise + self.bias[:, None, None])


class Paint(nn.Module):
    """Feature to colours: a 1x1 convolution scaled by style, its norm left alone."""

    def __init__(self, before: int, colours: int, styles: int) -> None:
        super().__init__()
        self.affine = Equalised(styles, before, bias=1.0)
        self.weight = _drawn(colours, before, 1, 1)
        self.bias = nn.Parameter(torch.zeros(colours))

    def forward(self, feature: Tensor, style: Tensor) -> Tensor:
        scale = self.affine(style) / math.sqrt(self.weight.shape[1])
        return conv2d(feature * scale[:, :, None, None], self.weight, self.bias)


class Equalised(nn.Module):
    """A linear layer with weights of about 1, scaled as it runs, so that one step size suits all (arXiv 1710.10196)."""

    def __init__(self, before: int, after: int, bias: float = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        self.rate = rate
        self.weight = _drawn(after, before, std=1 / rate)
        self.bias = nn.Parameter(torch.full((after,), bias))

    def forward(self, given: Tensor) -> Tensor:
        return linear(given, self.weight * (self.rate / math.sqrt(given.shape[1])), self.bias * self.rate)


def _drawn(*shape: int, std: float = 1.0) -> nn.Parameter:
    return nn.Parameter(nn.init.normal_(torch.empty(shape), std=std))


def kernel(like: Tensor) -> Tensor:
    """The low-pass filter ``[1, 3, 3, 1]`` in both directions, ``(4, 4)``, of sum 1."""
    line = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=like.dtype, device=like.device) / 8
    return line[:, None] * line


def blurred(feature: Tensor) -> Tensor:
    """Low-pass filtered, ``(M, C, n, n)`` to ``(M, C, n - 1, n - 1)``, of gain 4: what zeros between pixels cost."""
    planes = pad(feature, (1, 1, 1, 1)).flatten(0, 1)[:, None]
    filtered = conv2d(planes, 4 * kernel(feature)[None, None])
    return filtered.view(*feature.shape[:2], *filtered.shape[2:])


def _painted_larger(skip: Tensor) -> Tensor:
    """An image of twice the side: zeros between pixels, low-pass filtered."""
    planes = skip.flatten(0, 1)[:, None]
    doubled = conv_transpose2d(planes, 4 * kernel(skip)[None, None], stride=2, padding=1)
    return doubled.view(*skip.shape[:2], *doubled.shape[2:])


def _unit(vectors: Tensor) -> Tensor:
    return vectors * (vectors.square().mean(1, keepdim=True) + _EPS).rsqrt()


def _activated(given: Tensor) -> Tensor:
    return leaky_relu(given, _SLOPE) * _GAIN
