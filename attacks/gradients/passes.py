"""The contract of a gradient's computation."""

from types import MappingProxyType
from typing import NamedTuple, Protocol

from torch import Tensor

from attacks.gradients.factors import Tree
from fl_sim.core.types import Tensors


class Guess(NamedTuple):
    """What is believed to have been trained on; a leading trial dimension ``T`` everywhere.

    Args:
        images: ``(T, N, C, H, W)`` in [0, 1] units, not clamped.
        labels: ``(T, N)`` classes, or ``(T, N, K)`` weights of them.
        noise: What the model's stochastic modules drew, by buffer name, ``(T, N, *shape)``; empty: their mean.
        weights: Where the gradient was taken, ``(T, *shape)``; empty: at the weights that were broadcast.
    """

    images: Tensor
    labels: Tensor
    noise: Tensors = MappingProxyType({})
    weights: Tensors = MappingProxyType({})

    def examples(self) -> "Guess":
        """Each image as a trial of its own: ``T * N`` trials of one."""
        noise = {name: z.flatten(0, 1).unsqueeze(1) for name, z in self.noise.items()}
        return Guess(self.images.flatten(0, 1).unsqueeze(1), self.labels.flatten(0, 1).unsqueeze(1), noise)


class Passes(Protocol):
    """Computes gradients of the mean loss at fixed weights, differentiable in what goes in, once for sure."""

    def __call__(self, guess: Guess) -> Tree:
        """The gradient of each trial's batch."""
