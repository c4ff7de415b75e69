"""Defenses that bound how long an update is."""

from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import PositiveFloat
from torch import Generator, Tensor

from fl_sim.core.contracts import Defense, Protected
from fl_sim.core.density import Choice
from fl_sim.core.part import Unit, part
from fl_sim.core.trees import global_norm
from fl_sim.core.types import Tensors, Update


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
