"""The gradient of a first layer that is linear in the whole image: ``sum_i delta_i [x_i, 1]^T``, one term an image."""

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.problem import Problem
from fl_sim.core.errors import UnmetKnowledgeError
from fl_sim.core.types import Budget, Observation, Outcome, Reconstruction, Tensors


@dataclass(frozen=True, eq=False)
class FirstLayer:
    """A layer of ``m`` units over ``d`` pixels, all float64.

    Args:
        gradient: ``(m, d + 1)``, of the weights and, last, of the biases.
        parameters: ``(m, d + 1)``, likewise.
    """

    gradient: Tensor
    parameters: Tensor

    @classmethod
    def of(cls, problem: Problem, names: tuple[str, str]) -> "FirstLayer":
        def joined(tree: Tensors) -> Tensor:
            weight, bias = (tree[name].double() for name in names)
            return torch.cat([weight, bias[:, None]], 1)

        return cls(joined(problem.target), joined(problem.seen.broadcast))

    def says_something(self) -> bool:
        """Whether it is finite and not zero."""
        return bool(self.gradient.isfinite().all() and self.gradient.any())

    def misfit(self, rank: int) -> float:
        """What the best fit of ``rank`` leaves of the gradient, relative, in [0, 1]."""
        spectrum = torch.linalg.svdvals(self.gradient)
        return float(spectrum[rank:].norm() / spectrum.norm())


def first_linear(model: nn.Module, inputs: int) -> tuple[str, str]:
    """Names of the weight and bias of a first layer that is linear in the whole image.

    Raises:
        UnmetKnowledgeError: The first layer with weights is another one.
    """
    own = ((n, m) for n, m in model.named_modules() if next(m.parameters(recurse=False), None) is not None)
    name, layer = next(own, ("", None))
    if not isinstance(layer, nn.Linear) or layer.bias is None or layer.in_features != inputs:
        raise UnmetKnowledgeError(
            f"this attack needs a first layer that is Linear({inputs}, ...) with a bias; this model's is {layer}: "
            "use the model softmax or mlp, or another attack"
        )
    return f"{name}.weight", f"{name}.bias"


def first_linear_with_relu(model: nn.Module, seen: Observation) -> tuple[str, str]:
    """As :func:`first_linear`, of a layer with a ReLU behind it.

    Raises:
        UnmetKnowledgeError: The first layer is another one, or what follows it is no ``nn.ReLU`` module.
    """
    names = first_linear(model, math.prod(seen.task.image_shape))
    leaves = [(name, module) for name, module in model.named_modules() if not next(module.children(), None)]
    place = next(i for i, (name, _) in enumerate(leaves) if f"{name}.weight" == names[0])
    behind = leaves[place + 1][1] if place + 1 < len(leaves) else None
    if not isinstance(behind, nn.ReLU):
        raise UnmetKnowledgeError(
            f"this attack needs an nn.ReLU behind the first layer; behind this model's is {behind}: "
            "use the model mlp, or the attack ratio"
        )
    return names


def pictures(problem: Problem, inputs: Tensor) -> Tensor:
    """Inputs of the first layer ``(N, d)``, normalised, as images ``(N, C, H, W)`` float32 in [0, 1] on the CPU."""
    normalised = inputs.float().view(-1, *problem.seen.task.image_shape)
    images = problem.mean + problem.std * normalised
    return images.nan_to_num(0.5, 1.0, 0.0).clamp(0, 1).cpu()


def nothing(problem: Problem, began: float) -> Reconstruction:
    """What is returned for a gradient that says nothing: grey images."""
    shape = (problem.seen.update.num_examples, math.prod(problem.seen.task.image_shape))
    return Reconstruction(
        images=pictures(problem, torch.full(shape, torch.nan, device=problem.device)),
        labels=problem.labels.cpu(),
        outcome=Outcome.NON_FINITE,
        loss=math.inf,
        budget=Budget(iterations=0, seconds=time.monotonic() - began, device=problem.device),
    )
