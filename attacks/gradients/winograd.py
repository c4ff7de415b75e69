"""3x3 convolutions by Winograd's minimal filtering, F(4x4, 3x3): 36 products for 16 outputs instead of 144.

Source: Lavin and Gray 2015 (arXiv 1509.09308). Forward pass, both derivatives and the gradient of the weights share one
transformed domain, where each is a batch of 36 matrix products; a matching step has seven of them. In float32 the
result is good to 1e-6 of its size.
"""

from functools import cache

import torch
from torch import Tensor, nn

from attacks.gradients.operators import Tiles, apply

_INPUTS = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_OUTPUTS = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
_WEIGHTS = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_SUM = 7  # the point (1, 1), at which a tile's transform is the sum of its outputs
_CHANNELS, _PIXELS = 64, 1024  # fewer do not pay for the transforms on a CPU: experiments/LOG.md


def suits(layer: nn.Conv2d) -> bool:
    """Whether ``layer`` is of the kind, and wide enough to gain by it."""
    simple = layer.kernel_size == (3, 3) and layer.stride == layer.padding == layer.dilation == (1, 1)
    return simple and min(layer.in_channels, layer.out_channels) >= _CHANNELS


def pays(images: Tensor) -> bool:
    """Whether images ``(M, C, H, W)`` are of whole tiles, and large enough to gain by it; measured on a CPU alone."""
    height, width = images.shape[2:]
    return images.device.type == "cpu" and height % 4 == width % 4 == 0 and height * width >= _PIXELS


def points(weight: Tensor) -> Tensor:
    """``(out, in, 3, 3)`` to ``(36, out, in)``."""
    return (_square(_WEIGHTS, weight) @ weight.flatten(2).flatten(0, 1).T).view(36, *weight.shape[:2])


def of_inputs(images: Tensor) -> Tensor:
    """``(M, C, H, W)`` to ``(36, C, M * tiles)``."""
    tiles = apply(Tiles(tuple(images.shape)), images)
    return (_square(_INPUTS, images) @ tiles).view(36, images.shape[1], -1)


def to_outputs(products: Tensor, size: tuple[int, ...]) -> Tensor:
    """``(36, out, M * tiles)`` to images of ``size`` ``(M, -1, H, W)``."""
    many, _, height, width = size
    pixels = (_square(_OUTPUTS, products) @ products.flatten(1)).view(4, 4, -1, many, height // 4, width // 4)
    return pixels.permute(3, 2, 4, 0, 5, 1).reshape(many, -1, height, width)


def of_weights(back: Tensor, values: Tensor, trials: int) -> Tensor:
    """The gradient ``(trials, out, in, 3, 3)``, given ``back`` ``(36, out, …)`` and ``values`` ``(36, in, …)``."""
    left, right = (t.view(36, t.shape[1], trials, -1).transpose(1, 2) for t in (back, values))
    products = left @ right.transpose(2, 3)
    weights = _square(_WEIGHTS, products).T @ products.reshape(36, -1)
    return weights.view(9, -1).T.reshape(trials, back.shape[1], values.shape[1], 3, 3)


def of_bias(back: Tensor, trials: int) -> Tensor:
    """The gradient ``(trials, out)`` of what is added to the outputs."""
    return back[_SUM].view(back.shape[1], trials, -1).sum(2).T


def _square(matrix: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    """The transform of both dimensions at once."""
    return _kronecker(matrix, like.dtype, like.device)


@cache
def _kronecker(matrix: tuple[tuple[float, ...], ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    one = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(one, one).to(device=device, dtype=dtype)
