"""Linear maps with fixed weights, whose derivative is their adjoint and nothing else.

PyTorch's own second derivative of a convolution also computes the one in its weights, wanted or not: one of eight
passes.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad


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
        tiles = pad(inputs, (1, 1, 1, 1)).unfold(2, 6, 4).unfold(3, 6, 4)
        return tiles.permute(4, 5, 1, 0, 2, 3).reshape(36, -1)

    def adjoint(self, outputs: Tensor) -> Tensor:
        many, channels, height, width = self.size
        tiles = outputs.view(6, 6, channels, many, height // 4, width // 4)
        padded = outputs.new_zeros(many, channels, height + 4, width + 4)
        inner = padded.view(many, channels, height // 4 + 1, 4, width // 4 + 1, 4).permute(3, 5, 1, 0, 2, 4)
        inner[..., :-1, :-1] += tiles[:4, :4]  # pixels of a tile that none of the following ones has
        inner[:2, :, ..., 1:, :-1] += tiles[4:, :4]
        inner[:, :2, ..., :-1, 1:] += tiles[:4, 4:]
        inner[:2, :2, ..., 1:, 1:] += tiles[4:, 4:]
        return padded[:, :, 1 : height + 1, 1 : width + 1]
