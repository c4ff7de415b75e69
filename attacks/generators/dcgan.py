"""DCGAN: transposed convolutions with batch norm."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Generator as Draws
from torch import Tensor, nn

from attacks.generators.base import Generator, State


class DCGAN(Generator):
    """Latent to image by transposed convolutions (arXiv 1511.06434); without biases, batch norm in eval mode.

    The first makes a side of 4, each further one doubles it, and the last only changes channels where the side is
    reached before it, as in public CIFAR-10 weights (100-512-256-128-64-3 at a side of 32), and cuts a border off where
    it is passed, as in public MNIST weights (32 to 28). A stage is a convolution, batch norm and ReLU; the last one has
    neither.

    Args:
        image_shape: ``(C, H, W)``, its side 4 times a power of 2, or a little less.
        latents: Entries of the latent, N(0, 1).
        channels: Of each feature.
    """

    classes = 0

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latents: int = 100,
        channels: Sequence[int] = (512, 256, 128, 64),
    ) -> None:
        super().__init__()
        self.image_shape, self.latents = image_shape, latents
        sizes, side = [latents, *channels, image_shape[0]], 1
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList(nn.BatchNorm2d(c) for c in channels)
        for before, after in pairwise(sizes):
            beyond = (side - image_shape[1]) // 2
            kernel, stride, padding = (4, 1, 0) if side == 1 else (4, 2, 1) if beyond < 0 else (1, 1, beyond)
            side = 4 if side == 1 else side * stride
            self.convs.append(nn.ConvTranspose2d(before, after, kernel, stride, padding, bias=False))
        self.eval()

    @property
    def depth(self) -> int:
        return len(self.convs)

    def start(self, count: int, condition: Tensor, rng: Draws) -> State:
        return {"latent": torch.randn(count, self.latents, generator=rng).to(condition.device)}

    def stage(self, place: int, state: State) -> State:
        given = state["feature"] if place else state["latent"][:, :, None, None]
        made = self.convs[place](given)
        return {"feature": self.norms[place](made).relu() if place < len(self.norms) else made}

    def image(self, state: State) -> Tensor:
        return (state["feature"].tanh() + 1) / 2
