"""A generator's images as a task's images."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from fl_sim.core.errors import ConfigError

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def fitted(images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """``(M, C, H, W)`` in [0, 1] to ``(M, *shape)``: means over whole squares, else bilinear with antialiasing.

    Grey becomes RGB by repetition, RGB grey by its luminance.
    """
    channels, height, width = shape
    if images.shape[1] != channels:
        images = _coloured(images, channels)
    down, rest = divmod(images.shape[2], height)
    if rest == 0 and images.shape[3] == down * width:
        return avg_pool2d(images, down) if down > 1 else images
    return interpolate(images, (height, width), mode="bilinear", antialias=True).clamp(0, 1)


def _coloured(images: Tensor, channels: int) -> Tensor:
    if images.shape[1] == 1:
        return images.expand(-1, channels, -1, -1)
    if images.shape[1] == 3 and channels == 1:
        return (images * torch.tensor(_LUMA, device=images.device)[:, None, None]).sum(1, keepdim=True)
    raise ConfigError(
        f"expected a generator of images with {channels} channels, got one with {images.shape[1]}: "
        "take another generator, only grey and RGB are turned into each other"
    )
