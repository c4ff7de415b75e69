"""Models that draw random numbers in their forward pass, as PRECODE's bottleneck does (arXiv 2108.04725).

What is drawn is a buffer, so that it is handed over like any other: a client draws it from its own generator, an attack
searches for it or leaves it at its mean.
"""

import torch
from torch import Generator, Tensor, nn

from fl_sim.core.types import Tensors


class StandardNormal(nn.Module):
    """Holds one N(0, 1) draw an example, ``(N, width)``; where none was handed over, their mean, zero."""

    draw: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("draw", torch.zeros(1, width), persistent=False)

    def forward(self) -> Tensor:
        return self.draw


def draw_noise(model: nn.Module, count: int, rng: Generator) -> Tensors:
    """What ``model``'s stochastic modules draw for ``count`` examples, by buffer name; empty where it has none."""
    return {
        f"{name}.draw": torch.randn(count, module.width, generator=rng)
        for name, module in model.named_modules()
        if isinstance(module, StandardNormal)
    }
