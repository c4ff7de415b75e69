"""Defenses that bound how long an update is."""

import math
from dataclasses import replace
from typing import Annotated, Literal, Self

import torch
from pydantic import PositiveFloat
from torch import Generator, Tensor

from fl_sim.core.contracts import Defense, Protected
from fl_sim.core.density import Choice
from fl_sim.core.part import Unit, part
from fl_sim.core.trees import flat, global_norm
from fl_sim.core.types import Tensors, Update

_EQUAL, _TELLING = 1e-4, 0.05  # relative difference of lengths that are equal; of those that could be, under noise
_SURE, _TINY = 2.0, 1e-30  # stds of a length


@part
class Clip(Defense):
    """Shorten an update to at most a given L2 norm; its direction stays.

    Args:
        norm: The bound, in the update's own units.
        scope: Of the whole update (``global``) or of each tensor (``layer``).

    Bounds what noise has to hide; hides nothing itself (arXiv 1710.06963).
    """

    norm: Annotated[PositiveFloat, Unit("L2, update units")]
    scope: Literal["global", "layer"] = "global"

    def protect(self, update: Update, rng: Generator) -> Protected:
        del rng
        delta = self.shortened({name: t[None] for name, t in update.delta.items()})
        clipped = {name: t[0] for name, t in delta.items()}
        before, after = global_norm(update.delta).item(), global_norm(clipped).item()
        return Protected(replace(update, delta=clipped), {"norm_before": before, "norm_after": after})

    @classmethod
    def inferred(cls, received: Update, noise: float) -> Self:
        """The length of what is received, without the noise's; of each tensor, where the two longest are as long.

        Where the clip was not felt this is the update's own length, which leaves it as it is. Too small where something
        was left out afterwards; with the noise's length, hence too large, where nothing stands out of the noise.
        """
        first, *others = sorted(received.delta.values(), key=lambda t: signal_length(t, noise), reverse=True)
        alike = bool(others) and _equally_long(first, others[0], noise)
        whole = first if alike else flat(received.delta)
        norm = signal_length(whole, noise) or signal_length(whole, 0.0) or 1.0
        return cls(norm=norm, scope="layer" if alike else "global")

    def choices(self, clean: Tensors, drawn: Tensors) -> tuple[Choice, ...]:
        del drawn
        return (Choice(1.0, self.shortened(clean)),)

    def shortened(self, trials: Tensors) -> Tensors:
        """Each trial for itself, ``(T, *shape)``; differentiable."""
        norms = {name: t.reshape(len(t), -1).norm(dim=1) for name, t in trials.items()}
        if self.scope == "global":
            norms = dict.fromkeys(norms, torch.stack(list(norms.values())).norm(dim=0))
        return {name: t * self._factor(norms[name], t) for name, t in trials.items()}

    def _factor(self, norm: Tensor, like: Tensor) -> Tensor:
        return (self.norm / norm.clamp_min(self.norm)).view(-1, *[1] * (like.dim() - 1))


def signal_length(entries: Tensor, noise: float) -> float:
    """L2 norm of what lies under noise of a given std, by the mean of its square; 0 where nothing is left."""
    return math.sqrt(max(0.0, entries.double().square().sum().item() - entries.numel() * noise**2))


def _equally_long(first: Tensor, second: Tensor, noise: float) -> bool:
    """Whether the lengths below the noise differ by less than what is in doubt; not where much is."""
    lengths = [signal_length(t, noise) for t in (first, second)]
    doubt = _EQUAL + _SURE * sum(
        math.sqrt((noise * length) ** 2 + t.numel() * noise**4 / 2) / max(length, _TINY) ** 2
        for length, t in zip(lengths, (first, second), strict=True)
    )
    return doubt < _TELLING and lengths[0] - lengths[1] <= doubt * lengths[0]
