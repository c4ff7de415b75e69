"""Fully connected generators: small public MNIST GANs and VAE decoders."""

import itertools
from collections.abc import Sequence
from math import prod
from typing import Literal

import torch
from torch import Generator as Draws
from torch import Tensor, nn

from attacks.generators.base import Generator, State

Output = Literal["tanh", "sigmoid"]


class MLP(Generator):
    """Latent to image by linear layers with ReLU between; each layer is a stage, features are taken before ReLU.

    Args:
        image_shape: ``(C, H, W)``.
        widths: Of the latent, N(0, 1), and of each hidden layer: ``(64, 256, 256)``.
        output: What brings the last layer to pixels. ``tanh`` means [-1, 1], read as [0, 1].
    """

    classes = 0

    def __init__(self, image_shape: tuple[int, int, int], widths: Sequence[int], output: Output = "tanh") -> None:
        super().__init__()
        self.image_shape, self.latents, self.output = image_shape, widths[0], output
        sizes = [*widths, prod(image_shape)]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))

    @property
    def depth(self) -> int:
        return len(self.layers)

    def start(self, count: int, condition: Tensor, rng: Draws) -> State:
        return {"latent": torch.randn(count, self.latents, generator=rng).to(condition.device)}

    def stage(self, place: int, state: State) -> State:
        given = state["feature"].relu() if place else state["latent"]
        return {"feature": self.layers[place](given)}

    def image(self, state: State) -> Tensor:
        pixels = state["feature"].view(-1, *self.image_shape)
        return (pixels.tanh() + 1) / 2 if self.output == "tanh" else pixels.sigmoid()
