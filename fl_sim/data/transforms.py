"""From stored pixels to what a model sees."""

import torch
from torch import Tensor
from torch.nn import functional

_CHUNK = 4096  # images resized at once: bounds the float64 copy


def to_unit(images: Tensor) -> Tensor:
    """Uint8 pixels as float32 in [0, 1]; exact, so equal on every machine. Float32 ones are that already."""
    return images if images.is_floating_point() else images.float() / 255


def to_square(images: Tensor, size: int) -> Tensor:
    """Images ``(N, C, H, W)`` uint8 with their shorter side resized to ``size``, then centre-cropped to a square.

    Bilinear with antialiasing, in float64; ties round up by a margin above round-off, so that machines agree.
    """
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    shape = [max(size, round(side * size / min(height, width))) for side in (height, width)]
    top, left = ((side - size) // 2 for side in shape)
    chunks = (images[start : start + _CHUNK].double() for start in range(0, len(images), _CHUNK))
    resized = (functional.interpolate(chunk, shape, mode="bilinear", antialias=True) for chunk in chunks)
    cropped = (chunk[..., top : top + size, left : left + size] for chunk in resized)
    return torch.cat([(chunk + 0.5 + 1e-6).floor().clamp(0, 255).to(torch.uint8) for chunk in cropped])
