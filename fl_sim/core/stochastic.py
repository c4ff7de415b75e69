"""Models that draw random numbers in their forward pass: PRECODE's bottleneck (arXiv 2108.04725), dropout.

What is drawn is a buffer, so that it is handed over like any other: a client draws it from its own generator, an attack
searches for it or leaves it at its mean. What such a module adds to the loss is collected by :func:`charged`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from math import log

import torch
from torch import Generator, Tensor, nn

from fl_sim.core.errors import ConfigError
from fl_sim.core.types import Tensors


class Drawn(nn.Module, ABC):
    """Holds one draw an example, ``(N, width)``; where none was handed over, their mean."""

    draw: Tensor

    def __init__(self, width: int, mean: float) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("draw", torch.full((1, width), mean), persistent=False)

    def forward(self) -> Tensor:
        return self.draw

    @abstractmethod
    def sample(self, count: int, rng: Generator) -> Tensor:
        """``(count, width)`` draws."""

    @abstractmethod
    def surprise(self, draw: Tensor) -> Tensor:
        """``-log p`` of each entry, up to a constant; differentiable, also between the values that can be drawn."""

    @abstractmethod
    def nearest(self, draw: Tensor) -> Tensor:
        """The nearest values between those that can be drawn."""


class StandardNormal(Drawn):
    """N(0, 1)."""

    def __init__(self, width: int) -> None:
        super().__init__(width, mean=0.0)

    def sample(self, count: int, rng: Generator) -> Tensor:
        return torch.randn(count, self.width, generator=rng)

    def surprise(self, draw: Tensor) -> Tensor:
        return draw.square() / 2

    def nearest(self, draw: Tensor) -> Tensor:
        return draw


class Kept(Drawn):
    """Dropout's factors: 0 with chance ``rate`` in (0, 1), else ``1 / (1 - rate)``."""

    def __init__(self, width: int, rate: float) -> None:
        if not 0 < rate < 1:
            raise ConfigError(f"dropout: expected a rate above 0 and below 1, got {rate}: leave the layer out for 0")
        super().__init__(width, mean=1.0)
        self.rate = rate

    def sample(self, count: int, rng: Generator) -> Tensor:
        return (torch.rand(count, self.width, generator=rng) >= self.rate) / (1 - self.rate)

    def surprise(self, draw: Tensor) -> Tensor:
        """Linear between the two values."""
        return (1 - self.rate) * draw * log(self.rate / (1 - self.rate))

    def nearest(self, draw: Tensor) -> Tensor:
        return draw.clamp(0, 1 / (1 - self.rate))


def drawing(model: nn.Module) -> Mapping[str, Drawn]:
    """A model's stochastic modules by the names of their buffers."""
    return {f"{name}.draw": module for name, module in model.named_modules() if isinstance(module, Drawn)}


def draw_noise(model: nn.Module, count: int, rng: Generator) -> Tensors:
    """What ``model``'s stochastic modules draw for ``count`` examples, by buffer name; empty where it has none."""
    return {name: module.sample(count, rng) for name, module in drawing(model).items()}


class Charged(nn.Module, ABC):
    """A module whose input has a price, which is added to the cross-entropy that a client minimises."""

    @abstractmethod
    def price(self, inputs: Tensor) -> Tensor:
        """Of each example, ``(N,)``."""


@contextmanager
def charged(model: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, forward passes of ``model`` append the prices of its charged modules, each ``(N,)``."""
    prices = list[Tensor]()
    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, Charged):
                noted = module.register_forward_pre_hook(lambda m, inputs: prices.append(m.price(*inputs)))
                hooks.callback(noted.remove)
        yield prices
