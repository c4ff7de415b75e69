"""Layers with fixed parameters that write down their passes, so that gradients can be told trial by trial.

A layer's gradient is what went in times what comes back. Many trials go through the network as one batch, and only this
product is taken trial by trial: the weights are shared, the targets need not be.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, TypeAlias

from torch import Tensor, addcmul, nn
from torch.nn.functional import linear
from torch.nn.modules.batchnorm import _BatchNorm

from attacks.gradients import winograd
from attacks.gradients.convolution import Convolution, by_trial, columns_of, of_weights
from attacks.gradients.factors import Factors, thin
from attacks.gradients.operators import Means, apply


class Pass(NamedTuple):
    """One layer's forward pass on the examples of all trials.

    Args:
        out: What came out of its parameters, not yet of what follows them.
        tell: From what comes back at ``out``, and the number of trials, the gradients ``(trials, *shape)`` by name.
    """

    out: Tensor
    tell: "Callable[[Tensor, int], Gradients]"


class Tape(list[Pass]):
    """The passes so far, in order, of examples that belong to ``trials``, equally many to each."""

    trials: int = 1


Gradients: TypeAlias = Iterator[tuple[str, Tensor | Factors]]


class Lowered(nn.Module):
    """A layer whose parameters are constants.

    Args:
        layer: The layer whose parameters and form these are.
        name: Of the layer in its model.
        tape: Where each pass is written down.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: nn.Module, name: str, tape: Tape) -> None:
        super().__init__()
        self._name, self._tape = name, tape
        for kind in ("weight", "bias"):
            value = getattr(layer, kind)
            self.register_buffer(kind, None if value is None else value.detach(), persistent=False)

    def _noted(self, out: Tensor, tell: "Callable[[Tensor, int], Gradients]") -> Tensor:
        self._tape.append(Pass(out, tell))
        return out

    def _named(self, weight: Tensor | Factors, bias: Tensor) -> Gradients:
        if self.weight is not None:
            yield f"{self._name}.weight", weight
        if self.bias is not None:
            yield f"{self._name}.bias", bias


class Linear(Lowered):
    """``(M, in)`` to ``(M, out)``."""

    def forward(self, inputs: Tensor) -> Tensor:
        assert self.weight is not None
        return self._noted(linear(inputs, self.weight, self.bias), partial(self._tell, inputs))

    def _tell(self, inputs: Tensor, back: Tensor, trials: int) -> Gradients:
        left, right = (t.reshape(trials, -1, t.shape[-1]).transpose(1, 2) for t in (back, inputs))
        shape = (back.shape[-1], inputs.shape[-1])
        yield from self._named(Factors(left, right, shape).kept(), left.sum(2))


class Convolved(Lowered):
    """``(M, in, H, W)`` to ``(M, out, H', W')``, by columns or, where that pays, by Winograd's filtering."""

    def __init__(self, layer: nn.Conv2d, name: str, tape: Tape) -> None:
        super().__init__(layer, name, tape)
        assert self.weight is not None
        assert not isinstance(layer.padding, str)
        self._form = (layer.stride, layer.padding, layer.dilation)
        self._points = winograd.points(self.weight) if winograd.suits(layer) else None

    def forward(self, inputs: Tensor) -> Tensor:
        if self._points is not None and winograd.pays(inputs):
            out = self._filtered(inputs, self._points)
            return out if self.bias is None else out + _per_channel(self.bias)
        assert self.weight is not None
        layer = Convolution(self.weight, tuple(inputs.shape), *self._form)
        out = apply(layer, inputs)
        out = out if self.bias is None else out + _per_channel(self.bias)
        return self._noted(out, partial(self._by_columns, layer, inputs))

    def _by_columns(self, layer: Convolution, inputs: Tensor, back: Tensor, trials: int) -> Gradients:
        shape = tuple(layer.weight.shape)
        left = by_trial(back.flatten(2), trials)
        if inputs.device.type == "cpu" and not thin(shape[0], layer.weight[0].numel(), left.shape[2]):
            yield from self._named(of_weights(layer, inputs, back, trials), left.sum(2))
        else:
            right = by_trial(apply(columns_of(layer), inputs), trials)
            yield from self._named(Factors(left, right, shape).kept(), left.sum(2))

    def _filtered(self, inputs: Tensor, points: Tensor) -> Tensor:
        values = winograd.of_inputs(inputs)

        def tell(back: Tensor, trials: int) -> Gradients:
            return self._named(winograd.of_weights(back, values, trials), winograd.of_bias(back, trials))

        products = self._noted(points @ values, tell)
        return winograd.to_outputs(products, (len(inputs), -1, *inputs.shape[2:]))


class Normalised(Lowered):
    """Batch norm by its running statistics or, in train mode, by those of each trial's examples.

    The running statistics stay as they are: no gradient of a batch in train mode depends on them.
    """

    def __init__(self, layer: _BatchNorm, name: str, tape: Tape) -> None:
        super().__init__(layer, name, tape)
        self._eps = layer.eps
        self._running: tuple[Tensor, Tensor] | None = None
        if not layer.training and layer.running_mean is not None and layer.running_var is not None:
            factor = (layer.running_var + layer.eps).rsqrt()
            self._running = (_per_channel(factor), _per_channel(-layer.running_mean * factor))

    def forward(self, inputs: Tensor) -> Tensor:
        normal = (
            self._by_batch(inputs) if self._running is None else addcmul(self._running[1], inputs, self._running[0])
        )
        if self.weight is None or self.bias is None:
            return normal
        out = addcmul(_per_channel(self.bias), normal, _per_channel(self.weight))
        return self._noted(out, partial(self._tell, normal))

    def _by_batch(self, inputs: Tensor) -> Tensor:
        each = inputs.reshape(self._tape.trials, -1, *inputs.shape[1:])
        centred = each - each.mean((1, 3, 4), keepdim=True)
        variance = centred.square().mean((1, 3, 4), keepdim=True)
        return (centred * (variance + self._eps).rsqrt()).flatten(0, 1)

    def _tell(self, normal: Tensor, back: Tensor, trials: int) -> Gradients:
        weight, bias = (t.view(trials, -1, *t.shape[1:]).sum((1, 3, 4)) for t in (back * normal, back))
        yield from self._named(weight, bias)


class Averaged(nn.Module):
    """``(M, C, H, W)`` to the means of blocks that tile it; other sizes, and other devices, are the layer's own."""

    def __init__(self, layer: nn.AvgPool2d) -> None:
        super().__init__()
        self._layer, self._block = layer, _pair(layer.kernel_size)

    def forward(self, inputs: Tensor) -> Tensor:
        (height, width), (down, across) = inputs.shape[2:], self._block
        if inputs.device.type != "cpu" or height % down or width % across:
            return self._layer(inputs)  # type: ignore[no-any-return]
        return apply(Means(tuple(inputs.shape), self._block), inputs)


def lowered(layer: nn.Module, name: str, tape: Tape) -> nn.Module | None:
    """``layer`` as one of these, if there is one for it."""
    if type(layer) is nn.Linear:
        return Linear(layer, name, tape)
    if type(layer) is nn.Conv2d and _plain(layer):
        return Convolved(layer, name, tape)
    if type(layer) is nn.BatchNorm2d:
        return Normalised(layer, name, tape)
    if type(layer) is nn.AvgPool2d and _tiles(layer):
        return Averaged(layer)
    return None


def _tiles(layer: nn.AvgPool2d) -> bool:
    side_by_side = _pair(layer.stride) == _pair(layer.kernel_size) and _pair(layer.padding) == (0, 0)
    return side_by_side and layer.divisor_override is None


def _pair(sides: int | tuple[int, ...]) -> tuple[int, ...]:
    return (sides, sides) if isinstance(sides, int) else tuple(sides)


def _plain(layer: nn.Conv2d) -> bool:
    return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _per_channel(values: Tensor) -> Tensor:
    return values.detach().view(-1, 1, 1)
