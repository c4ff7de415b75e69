"""Linear maps with fixed weights, whose derivative is their adjoint and nothing else.

PyTorch's own second derivative of a convolution also computes the one in its weights, wanted or not: one of eight
passes.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import conv2d


class LinearMap(Protocol):
    """``forward`` and ``adjoint`` are each other's transposes."""

    def forward(self, inputs: Tensor) -> Tensor: ...

    def adjoint(self, outputs: Tensor) -> Tensor: ...


def apply(linear: LinearMap, inputs: Tensor) -> Tensor:
    """``linear.forward(inputs)``, differentiable in ``inputs`` any number of times."""
    return _Applied.apply(inputs, linear, False)  # type: ignore[no-any-return]


class _Applied(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, linear: LinearMap, transposed: bool) -> Tensor:
        ctx.linear, ctx.transposed = linear, transposed
        return linear.adjoint(inputs) if transposed else linear.forward(inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Applied.apply(grad, ctx.linear, not ctx.transposed), None, None


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """``(M, in, H, W)`` to ``(M, out, H', W')``; ``weight`` ``(out, in, kernel, kernel)``."""

    weight: Tensor
    size: tuple[int, ...]  # of the inputs
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def forward(self, inputs: Tensor) -> Tensor:
        return conv2d(inputs, self.weight, None, self.stride, self.padding, self.dilation)

    def adjoint(self, outputs: Tensor) -> Tensor:
        back: Tensor = torch.ops.aten.convolution_backward(
            outputs,
            outputs.new_empty(()).expand(self.size),
            self.weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            transposed=False,
            output_padding=(0, 0),
            groups=1,
            output_mask=(True, False, False),
        )[0]
        return back


@dataclass(frozen=True, slots=True)
class Tiles:
    """Overlapping 6x6 tiles at every fourth pixel, of images padded by 1: ``(M, C, H, W)`` to ``(36, C * M * tiles)``.

    ``H`` and ``W`` are multiples of 4.
    """

    size: tuple[int, ...]

    def forward(self, inputs: Tensor) -> Tensor:
        many, channels, height, width = self.size
        planes = inputs.view(many, channels, height // 4, 4, width // 4, 4).permute(3, 5, 1, 0, 2, 4)
        tiles = inputs.new_zeros(6, 6, *planes.shape[2:])  # place in the tile, channel, image, place of the tile
        tiles[1:5, 1:5] = planes
        tiles[0, 1:5, ..., 1:, :] = tiles[4, 1:5, ..., :-1, :]  # the first row is the last but one of the tile above
        tiles[5, 1:5, ..., :-1, :] = tiles[1, 1:5, ..., 1:, :]
        tiles[:, 0, ..., 1:] = tiles[:, 4, ..., :-1]
        tiles[:, 5, ..., :-1] = tiles[:, 1, ..., 1:]
        return tiles.view(36, -1)

    def adjoint(self, outputs: Tensor) -> Tensor:
        many, channels, height, width = self.size
        tiles = outputs.view(6, 6, channels, many, height // 4, width // 4)
        columns = tiles[:, 1:5].clone()
        columns[:, 3, ..., :-1] += tiles[:, 0, ..., 1:]
        columns[:, 0, ..., 1:] += tiles[:, 5, ..., :-1]
        planes = columns[1:5]
        planes[3, ..., :-1, :] += columns[0, ..., 1:, :]
        planes[0, ..., 1:, :] += columns[5, ..., :-1, :]
        return planes.permute(3, 2, 4, 0, 5, 1).reshape(self.size)
