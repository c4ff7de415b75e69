"""Defenses that send an update in fewer bits."""

from dataclasses import replace
from typing import ClassVar, final

import torch
from torch import Generator, Tensor

from fl_sim.core.contracts import Codec, Defense, Protected
from fl_sim.core.density import Choice, Interval
from fl_sim.core.part import part
from fl_sim.core.trees import flat, map_tree, subtract
from fl_sim.core.types import Tensors, Update

CODE, SCALE = ":code", ":scale"
LEVELS = 127  # codes are -127..127, so that zero is a code and the grid is symmetric


def scale_of(tensor: Tensor) -> Tensor:
    """Distance of two neighbouring levels; 1 for a tensor of zeros. A scalar."""
    largest = tensor.abs().max() if tensor.numel() else tensor.new_zeros(())
    return torch.where(largest > 0, largest / LEVELS, 1.0)


@final
class Int8(Codec):
    """One signed byte an entry and one float32 scale a tensor; integer tensors pass."""

    def encode(self, payload: Tensors) -> Tensors:
        sent = dict[str, Tensor]()
        for name, t in payload.items():
            if t.is_floating_point():
                sent[name + CODE] = (t / scale_of(t)).round().to(torch.int8)
                sent[name + SCALE] = scale_of(t).reshape(1)
            else:
                sent[name] = t
        return sent

    def decode(self, payload: Tensors, like: Tensors) -> Tensors:
        del like
        codes = {name.removesuffix(CODE): t for name, t in payload.items() if name.endswith(CODE)}
        passed = {name: t for name, t in payload.items() if not name.endswith((CODE, SCALE))}
        return passed | {name: code * payload[name + SCALE] for name, code in codes.items()}


@part
class Quantize(Defense):
    """Round every entry to the nearest of 255 evenly spaced levels between -max and max of its tensor: 8 bits.

    Deterministic: the error of an entry is at most half a level, max / 254. QSGD (arXiv 1610.02132) rounds at random
    to be unbiased.
    """

    codec: ClassVar[Codec] = Int8()

    def protect(self, update: Update, rng: Generator) -> Protected:
        del rng
        delta = map_tree(lambda t: (t / scale_of(t)).round() * scale_of(t), update.delta)
        error = flat(subtract(delta, update.delta)).abs().max().item()
        stats = {"largest_error": error}
        return Protected(replace(update, delta=delta), stats)

    def choices(self, clean: Tensors, drawn: Tensors) -> tuple[Choice, ...]:
        """Rounding before noise: the rounding error is lost in the noise, and its derivative is taken to be 1."""
        del drawn
        return (Choice(1.0, clean),)

    def bounds(self, output: Interval) -> Interval:
        """The cell of the level that was sent; a tensor of zeros was one before."""
        half = {name: t.abs().amax() / (2 * LEVELS) for name, t in output.high.items()}
        low = {name: t - half[name] for name, t in output.low.items()}
        return Interval(low, {name: t + half[name] for name, t in output.high.items()})
