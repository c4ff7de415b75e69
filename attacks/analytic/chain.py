"""A model as a chain of layers, each followed by an activation that can be undone, and a linear layer at the end."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.nn.grad import conv2d_input, conv2d_weight

from attacks.problem import Problem
from fl_sim.core.errors import UnmetKnowledgeError
from fl_sim.models.layers import Normalise
from fl_sim.training.local import State, logits_of

_NEAR = 1e-9  # a bounded activation is at least so far from its bounds
_PASSED = (Normalise, nn.Flatten, nn.Identity, nn.Dropout)  # what changes nothing here, or is accounted for

Layer: TypeAlias = nn.Conv2d | nn.Linear

Undo: TypeAlias = Callable[[nn.Module, Tensor], tuple[Tensor, Tensor]]
"""From an activation's output to its input, and its slope there."""


def _undo_sigmoid(_: nn.Module, out: Tensor) -> tuple[Tensor, Tensor]:
    inside = out.clamp(_NEAR, 1 - _NEAR)
    return inside.logit(), inside * (1 - inside)


def _undo_tanh(_: nn.Module, out: Tensor) -> tuple[Tensor, Tensor]:
    inside = out.clamp(_NEAR - 1, 1 - _NEAR)
    return inside.atanh(), 1 - inside.square()


def _undo_leaky_relu(module: nn.Module, out: Tensor) -> tuple[Tensor, Tensor]:
    assert isinstance(module, nn.LeakyReLU)
    slope = torch.where(out > 0, 1.0, module.negative_slope).to(out)
    return out / slope, slope


UNDO: Mapping[type[nn.Module], Undo] = {
    nn.Sigmoid: _undo_sigmoid,
    nn.Tanh: _undo_tanh,
    nn.LeakyReLU: _undo_leaky_relu,
}


@dataclass(frozen=True, eq=False)
class Link:
    """A layer and its activation, for one image; tensors are float64.

    The layer is bilinear but for its bias: ``<forward(x, w), d> = <x, backward(d, w)> = <w, weigh(x, d)>``.

    Args:
        shape: Of its input, ``(1, ...)``.
        out: Of its output.
        weight: As broadcast.
        bias: As broadcast, shaped to be added to the output.
        gradient: Observed, of the weight.
    """

    layer: Layer
    activation: nn.Module
    shape: tuple[int, ...]
    out: tuple[int, ...]
    weight: Tensor
    bias: Tensor
    gradient: Tensor

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return _forward(self.layer, x, weight)

    def backward(self, delta: Tensor, weight: Tensor) -> Tensor:
        if isinstance(self.layer, nn.Linear):
            return delta @ weight
        found: Tensor = conv2d_input(self.shape, weight, delta, **_geometry(self.layer))  # type: ignore[no-untyped-call]
        return found

    def weigh(self, x: Tensor, delta: Tensor) -> Tensor:
        if isinstance(self.layer, nn.Linear):
            return delta.T @ x
        found: Tensor = conv2d_weight(x, self.weight.shape, delta, **_geometry(self.layer))  # type: ignore[no-untyped-call]
        return found

    def undo(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """What the layer made of its input without the bias, and the activation's slope there."""
        before, slope = UNDO[type(self.activation)](self.activation, out.view(self.out))
        return before - self.bias, slope


def links_of(problem: Problem) -> tuple[list[Link], str]:
    """The links in the model's order, and the name of the linear layer behind them.

    Raises:
        UnmetKnowledgeError: The model is no such chain.
    """
    steps = [
        (name, module)
        for name, module in problem.model.named_modules()
        if not next(module.children(), None) and not isinstance(module, _PASSED)
    ]
    layers, activations, (last, head) = steps[:-1:2], steps[1:-1:2], steps[-1]
    if strange := [module for _, module in steps if not _is_layer(module) and type(module) not in UNDO]:
        raise _refusal(f"this model has {strange[0]}")
    alternate = all(_is_layer(m) for _, m in layers) and all(type(m) in UNDO for _, m in activations)
    if not alternate or len(layers) != len(activations) or not isinstance(head, nn.Linear) or head.bias is None:
        raise _refusal("this model has them in another order, or without")
    x, links = _probe(problem), list[Link]()
    for (name, layer), (_, activation) in zip(layers, activations, strict=True):
        x = x.flatten(1) if isinstance(layer, nn.Linear) else x
        links.append(_link(problem, name, layer, activation, x))
        x = activation(links[-1].forward(x, links[-1].weight) + links[-1].bias)
    weight, bias = (problem.seen.broadcast[f"{last}.{part}"].double() for part in ("weight", "bias"))
    if not torch.allclose(x.flatten(1) @ weight.T + bias, _logits(problem), rtol=1e-3, atol=1e-3):
        raise _refusal("this model's layers are not run one after the other")
    return links, last


def _link(problem: Problem, name: str, layer: nn.Module, activation: nn.Module, x: Tensor) -> Link:
    assert isinstance(layer, (nn.Conv2d, nn.Linear))
    weight, gradient = (tree[f"{name}.weight"].double() for tree in (problem.seen.broadcast, problem.target))
    out = _forward(layer, x, weight)
    bias = problem.seen.broadcast[f"{name}.bias"].double() if layer.bias is not None else out.new_zeros(out.shape[1])
    return Link(
        layer=layer,
        activation=activation,
        shape=tuple(x.shape),
        out=tuple(out.shape),
        weight=weight,
        bias=bias.view(1, -1, *[1] * (out.dim() - 2)),
        gradient=gradient,
    )


def _is_layer(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return isinstance(module, nn.Linear)


def _forward(layer: Layer, x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight.T if isinstance(layer, nn.Linear) else conv2d(x, weight, **_geometry(layer))


def _geometry(layer: nn.Conv2d) -> dict[str, Any]:
    return {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}


def _image(problem: Problem) -> Tensor:
    """Any image, ``(1, C, H, W)``."""
    shape = problem.seen.task.image_shape
    return torch.linspace(0, 1, math.prod(shape), device=problem.device).view(1, *shape)


def _probe(problem: Problem) -> Tensor:
    return ((_image(problem) - problem.mean) / problem.std).double()


def _logits(problem: Problem) -> Tensor:
    state = State(problem.seen.broadcast, problem.seen.buffers)
    with torch.no_grad():
        return logits_of(problem.model, state, _image(problem))[0].double()


def _refusal(reason: str) -> UnmetKnowledgeError:
    undone = ", ".join(kind.__name__ for kind in UNDO)
    return UnmetKnowledgeError(
        f"this attack goes back through layers (Conv2d, Linear), each followed by one of {undone}, to a last Linear "
        f"with a bias; {reason}: use the model lenet, or another attack"
    )
