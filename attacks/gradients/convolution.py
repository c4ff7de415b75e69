"""Convolutions, the columns that their kernels see, and the gradients of their weights, trial by trial."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, fold, pad, unfold


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """``(M, in, H, W)`` to ``(M, out, H', W')``; ``weight`` ``(out, in, kernel, kernel)``.

    PyTorch's own second derivative of a convolution also computes the one in its weights, wanted or not: one of eight
    passes.
    """

    weight: Tensor
    size: tuple[int, ...]  # of the inputs
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def forward(self, inputs: Tensor) -> Tensor:
        return conv2d(inputs, self.weight, None, self.stride, self.padding, self.dilation)

    def adjoint(self, outputs: Tensor) -> Tensor:
        return self._back(outputs, self.weight, self.size, groups=1)

    def adjoint_by_trial(self, outputs: Tensor, weights: Tensor) -> Tensor:
        """The adjoint for examples ``(M, out, H', W')`` of trials that have ``weights`` ``(trials, *shape)``."""
        trials = len(weights)
        size = (self.size[0] // trials, trials * self.size[1], *self.size[2:])
        beside = _swapped(outputs, trials, len(outputs) // trials).flatten(1, 2)
        images = self._back(beside, weights.flatten(0, 1), size, groups=trials)
        return _swapped(images.view(-1, *self.size[1:]), size[0], trials).reshape(self.size)

    def _back(self, outputs: Tensor, weight: Tensor, size: tuple[int, ...], groups: int) -> Tensor:
        back: Tensor = torch.ops.aten.convolution_backward(
            outputs,
            outputs.new_empty(()).expand(size),
            weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            transposed=False,
            output_padding=(0, 0),
            groups=groups,
            output_mask=(True, False, False),
        )[0]
        return back


@dataclass(frozen=True, slots=True)
class Columns:
    """What a kernel sees at each place: ``(M, C, H, W)`` to ``(M, C * kernel, places)``, as ``unfold`` does.

    On a CPU ``unfold`` copies pixel by pixel; here rows are copied as wholes.
    """

    size: tuple[int, ...]  # of the inputs
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.device.type != "cpu":
            return unfold(inputs, self.kernel, self.dilation, self.padding, self.stride)
        above, beside = self.padding
        padded = pad(inputs, (beside, beside, above, above)).contiguous()
        many, channel, row, _ = padded.stride()
        (down, across), (apart, aside) = self.stride, self.dilation
        shape = (*self.size[:2], *self.kernel, *self._places())
        seen = padded.as_strided(shape, (many, channel, row * apart, aside, row * down, across))
        return seen.reshape(*shape[:2], -1, shape[4] * shape[5]).flatten(1, 2)

    def adjoint(self, outputs: Tensor) -> Tensor:
        return fold(outputs, self.size[2:], self.kernel, self.dilation, self.padding, self.stride)

    def _places(self) -> tuple[int, ...]:
        sides = zip(self.size[2:], self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple((length + 2 * p - d * (k - 1) - 1) // s + 1 for length, k, s, p, d in sides)


def of_weights(layer: Convolution, inputs: Tensor, back: Tensor, trials: int) -> Tensor:
    """The gradients ``(trials, out, in, kernel, kernel)``, given what comes ``back`` ``(M, out, H', W')``.

    Differentiable once, in ``inputs`` and in ``back``; how that is done was measured on a CPU alone.
    """
    return _OfWeights.apply(inputs, back, layer, trials)  # type: ignore[no-any-return]


class _OfWeights(torch.autograd.Function):
    """The derivative in the inputs is a convolution in as many groups as trials: no column is added back."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, back: Tensor, layer: Convolution, trials: int) -> Tensor:
        columns = by_trial(columns_of(layer).forward(inputs), trials)
        ctx.save_for_backward(back, columns)
        ctx.layer = layer
        product = by_trial(back.flatten(2), trials) @ columns.transpose(1, 2)
        return product.view(trials, *layer.weight.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None, None]:
        back, columns = ctx.saved_tensors
        trials, out = slope.shape[:2]
        places = (slope.flatten(2) @ columns).view(trials, out, len(back) // trials, *back.shape[2:])
        return ctx.layer.adjoint_by_trial(back, slope), places.transpose(1, 2).reshape(back.shape), None, None


def columns_of(layer: Convolution) -> Columns:
    """Of a layer's inputs."""
    return Columns(layer.size, tuple(layer.weight.shape[2:]), layer.stride, layer.padding, layer.dilation)


def by_trial(places: Tensor, trials: int) -> Tensor:
    """``(M, size, places)`` to ``(trials, size, examples * places)``."""
    if len(places) == trials:
        return places
    size = places.shape[1]
    return places.view(trials, -1, size, places.shape[2]).transpose(1, 2).reshape(trials, size, -1)


def _swapped(examples: Tensor, first: int, second: int) -> Tensor:
    """``(first * second, …)`` to ``(second, first, …)``."""
    return examples.view(first, second, *examples.shape[1:]).transpose(0, 1)
