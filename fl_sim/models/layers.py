"""What the models share: the normalising first layer, and the size of what reaches the last ones."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fl_sim.core.errors import ConfigError
from fl_sim.core.types import Task


class Normalise(nn.Module):
    """``(x - mean) / std`` per channel. Both are constants of the task: buffers, but not in the state dict."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class NormaliseFirst:
    """A forward pre-hook: normalises the images of a module whose weights must keep their names."""

    def __init__(self, normalise: Normalise) -> None:
        self._normalise = normalise

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        del module
        images, *others = inputs
        return (self._normalise.to(images.device)(images), *others)


class Model(nn.Module):
    """Images ``(N, C, H, W)`` in [0, 1] to logits ``(N, classes)``; weights are named ``net.…``.

    The registered networks end in a linear layer ``net.head``.
    """

    def __init__(self, normalise: Normalise, net: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(self.normalise(images))
        return logits


def flat_size(features: nn.Module, task: Task) -> int:
    """Numbers an image of ``task`` turns into after ``features``, whose training mode is left on."""
    try:
        with torch.no_grad():
            out: Tensor = features.eval()(torch.zeros(1, *task.image_shape))
    except RuntimeError as error:
        raise ConfigError(
            f"this model needs larger images than (C, H, W) = {task.image_shape} ({error}): "
            f"set data.image_size, or take a model without pooling: softmax, mlp, lenet"
        ) from error
    features.train()
    return out.numel()
