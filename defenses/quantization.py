"""Defenses that send an update in fewer bits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Annotated, Literal, Self, final

import torch
from torch import Generator, Tensor

from fl_sim.core.codec import Codec
from fl_sim.core.contracts import Defense, Protected
from fl_sim.core.density import Choice, Interval
from fl_sim.core.errors import ConfigError
from fl_sim.core.part import Unit, part
from fl_sim.core.trees import flat, global_norm, map_tree, subtract
from fl_sim.core.types import Tensors, Update

CODE, SCALE, SHAPE = ":code", ":scale", ":shape"


@final
@dataclass(frozen=True, slots=True)
class Packed(Codec):
    """Entries on an even grid as whole numbers of a few bits, with a float32 scale a tensor; integer tensors pass.

    Args:
        bits: An entry takes, 1, 2, 4 or 8. The grid is ``-levels .. levels`` times ``scale``; with 1 bit ``-1, 1``.
    """

    bits: int

    @property
    def levels(self) -> int:
        return 2 ** (self.bits - 1) - 1 if self.bits > 1 else 1

    def encode(self, payload: Tensors) -> Tensors:
        sent = dict[str, Tensor]()
        for name, t in payload.items():
            if t.is_floating_point():
                scale = scale_of(t, self.levels)
                sent[name + CODE] = _pack((t / scale).round().to(torch.int16).reshape(-1), self)
                sent[name + SCALE] = (scale * t.any()).reshape(1)  # 0 for zeros, which 1 bit cannot say
                sent |= shape_of(name, t)
            else:
                sent[name] = t
        return sent

    def decode(self, payload: Tensors, like: Tensors) -> Tensors:
        names = [name.removesuffix(CODE) for name in payload if name.endswith(CODE)]
        passed = without(payload, names, (CODE, SCALE, SHAPE))
        return passed | {name: self._decoded(payload, name, like) for name in names}

    def _decoded(self, payload: Tensors, name: str, like: Tensors) -> Tensor:
        shape = sent_shape(name, payload, like)
        codes = _unpack(payload[name + CODE], self)[: prod(shape)]
        scale = payload[name + SCALE]
        return codes.view(shape).to(scale) * scale


def without(payload: Tensors, names: Sequence[str], suffixes: Sequence[str]) -> dict[str, Tensor]:
    """What is not one of the tensors that stand for ``names``: codecs nest, and each knows its own."""
    own = {name + suffix for name in names for suffix in suffixes}
    return {name: t for name, t in payload.items() if name not in own}


def shape_of(name: str, tensor: Tensor) -> Tensors:
    """As it is sent: not of a parameter, whose shape the server knows, but of what another codec made of one."""
    return {name + SHAPE: torch.tensor(tensor.shape, dtype=torch.int32)} if ":" in name else {}


def sent_shape(name: str, payload: Tensors, like: Tensors) -> list[int]:
    """Of what was called ``name`` before it was encoded."""
    return payload[name + SHAPE].tolist() if name + SHAPE in payload else list(like[name].shape)


def scale_of(tensor: Tensor, levels: int) -> Tensor:
    """Distance of two neighbouring levels, of which the last is the largest entry; 1 for zeros. A scalar."""
    largest = tensor.abs().max() if tensor.numel() else tensor.new_zeros(())
    return torch.where(largest / levels > 0, largest / levels, 1.0)


def _pack(codes: Tensor, codec: Packed) -> Tensor:
    """Whole numbers ``(n,)`` as bytes, several to a byte, the first in the lowest bits."""
    each = 8 // codec.bits
    raw = (codes > 0).to(torch.int16) if codec.bits == 1 else codes + codec.levels
    padded = torch.nn.functional.pad(raw, (0, -len(raw) % each)).view(-1, each)
    shifts = torch.arange(each) * codec.bits
    return (padded << shifts).sum(1).to(torch.uint8)


def _unpack(packed: Tensor, codec: Packed) -> Tensor:
    shifts = torch.arange(8 // codec.bits) * codec.bits
    raw = ((packed.to(torch.int16)[:, None] >> shifts) & (2**codec.bits - 1)).reshape(-1)
    codes: Tensor = 2 * raw - 1 if codec.bits == 1 else raw - codec.levels
    return codes


@part
class Quantize(Defense):
    """Round every entry to one of ``2^bits - 1`` evenly spaced levels between -max and max of its tensor.

    Args:
        bits: An entry, 8, 4 or 2; with 2 the levels are -max, 0 and max (TernGrad, arXiv 1705.07878).
        rounding: ``nearest``: off by half a level at most; ``stochastic``: up or down by chance, so that the mean is
            right: QSGD (arXiv 1610.02132), whose scale is the norm of a tensor; here it is the largest entry.
        feedback: Whether what was not sent is added to the client's next update (error feedback). Of nearest rounding
            only: stochastic rounding may lose more than there was, and what is owed would grow without end.
    """

    bits: Annotated[Literal[2, 4, 8], Unit("bits an entry")] = 8
    rounding: Literal["nearest", "stochastic"] = "nearest"
    feedback: bool = False

    def __post_init__(self) -> None:
        if self.feedback and self.rounding == "stochastic":
            raise ConfigError(
                'quantize: expected rounding = "nearest" with error feedback, got "stochastic", whose errors would '
                "grow from round to round; it has no bias to make up for: leave feedback out"
            )

    @property
    def codec(self) -> Codec:
        return Packed(self.bits)

    def protect(self, update: Update, rng: Generator) -> Protected:
        delta = map_tree(lambda t: self._rounded(t, rng), update.delta)
        error = flat(subtract(delta, update.delta)).abs().max().item()
        return Protected(replace(update, delta=delta), {"largest_error": error})

    @classmethod
    def inferred(cls, received: Update, noise: float) -> Self:
        """The fewest bits on whose grid every entry is, rounded to the nearest: also the better guess where it was not.

        Before noise no grid is seen, nor is one needed there.
        """
        del noise
        few: tuple[Literal[2, 4], ...] = (2, 4)
        fits = [bits for bits in few if all(_on_grid(t, Packed(bits).levels) for t in received.delta.values())]
        return cls(bits=fits[0] if fits else 8)

    def choices(self, clean: Tensors, drawn: Tensors) -> tuple[Choice, ...]:
        """Rounding before noise: the rounding error is lost in the noise, and its derivative is taken to be 1."""
        del drawn
        return (Choice(1.0, clean),)

    def bounds(self, output: Interval) -> Interval:
        """The cell of the level that was sent, within the largest entry; a tensor of zeros was one before.

        Of stochastic rounding both neighbouring cells; that the nearer level was the likelier is not used.
        """
        most = _largest(output)
        cell = (0.5 if self.rounding == "nearest" else 1.0) / Packed(self.bits).levels
        reach = {name: cell * t for name, t in most.items()}
        low = {name: torch.maximum(t - reach[name], -most[name]) for name, t in output.low.items()}
        return Interval(low, {name: torch.minimum(t + reach[name], most[name]) for name, t in output.high.items()})

    def _rounded(self, tensor: Tensor, rng: Generator) -> Tensor:
        scale = scale_of(tensor, Packed(self.bits).levels)
        units = tensor / scale
        if self.rounding == "nearest":
            return units.round() * scale
        up = torch.rand(units.shape, generator=rng, dtype=units.dtype).to(units.device) < units - units.floor()
        return (units.floor() + up) * scale


@part
class SignSgd(Defense):
    """Send the sign of every entry, one bit, and the mean size of a tensor's entries.

    Args:
        feedback: Whether what was not sent is added to the client's next update (error feedback).

    The scaled sign of arXiv 1901.09847, EF-SGD with ``feedback``; signSGD proper (arXiv 1802.04434) has no scale. An
    entry of 0 is sent as positive.
    """

    feedback: bool = False

    @property
    def codec(self) -> Codec:
        return Packed(1)

    def protect(self, update: Update, rng: Generator) -> Protected:
        del rng
        delta = map_tree(lambda t: torch.where(t >= 0, 1.0, -1.0).to(t) * t.abs().mean(), update.delta)
        error = global_norm(subtract(delta, update.delta)).item()
        return Protected(replace(update, delta=delta), {"error_norm": error})

    @classmethod
    def inferred(cls, received: Update, noise: float) -> Self:
        """It has no strength."""
        del received, noise
        return cls()

    def choices(self, clean: Tensors, drawn: Tensors) -> tuple[Choice, ...]:
        """Signs before noise: the guess's own scale, and its signs with the slope of the plain entries."""
        del drawn
        return (Choice(1.0, {name: _scaled_sign(t) for name, t in clean.items()}),)

    def bounds(self, output: Interval) -> Interval:
        """The half line of the sign, up to what the sum of sizes leaves for one entry."""
        most = {name: t * output.high[name].numel() for name, t in _largest(output).items()}
        low = {name: torch.where(t >= 0, 0.0, -most[name]) for name, t in output.low.items()}
        return Interval(low, {name: torch.where(t < 0, 0.0, most[name]) for name, t in output.high.items()})


def _on_grid(tensor: Tensor, levels: int) -> bool:
    units = tensor / scale_of(tensor, levels)
    return bool(((units - units.round()).abs() < 1e-3).all())


def _largest(output: Interval) -> Tensors:
    """Of each tensor, the size that no entry exceeds; 0 where there is none."""
    sizes = {name: torch.maximum(output.low[name].abs(), t.abs()) for name, t in output.high.items()}
    return {name: t.amax() if t.numel() else t.new_zeros(()) for name, t in sizes.items()}


def _scaled_sign(trials: Tensor) -> Tensor:
    """Of each trial ``(T, *shape)``; the sign's derivative is taken to be that of the entry over the scale."""
    scale = trials.abs().flatten(1).mean(1).view(-1, *[1] * (trials.dim() - 1))
    sign = torch.where(trials >= 0, 1.0, -1.0).to(trials)
    return sign * scale + trials - trials.detach()
