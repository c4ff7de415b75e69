"""What a fully connected layer betrays of an image behind convolutions: its input."""

from typing import ClassVar

from torch import Tensor, nn

from attacks.entering import first_linear_with_bias
from attacks.likelihoods.base import Likelihood, Misfit
from attacks.problem import Problem
from fl_sim.core.errors import UnmetKnowledgeError
from fl_sim.core.part import part
from fl_sim.core.types import Observation, Tensors

_TINY = 1e-30


@part
class Features(Likelihood):
    """Squared distance to what went into the first fully connected layer, over that input's own squares.

    One image's gradient of ``W x + b`` is ``delta [x, 1]^T``: the weights' over the biases' is ``x``, exact without
    noise (arXiv 2003.14053, proposition D.1, there of a first layer). The network is only run up to that layer, forward
    and back: a quarter of what a step costs that compares gradients. With noise ``x`` is the least-squares one.
    """

    joins: ClassVar[bool] = True

    def check(self, seen: Observation, model: nn.Module) -> None:
        steps = seen.protocol.steps(seen.update.num_examples) if seen.protocol is not None else 1
        if seen.update.num_examples > 1 or (seen.update.kind == "delta" and steps > 1):
            raise UnmetKnowledgeError(
                f"the input of a layer is read off one step on one image, and this update is of "
                f"{seen.update.num_examples} and {steps}: set features = 0, or batch_size = 1 and one local step"
            )
        if first_linear_with_bias(model) is None:
            raise UnmetKnowledgeError(
                "the input of a layer is read off a fully connected one with a bias, and this model has none: set "
                "features = 0, or use another model"
            )

    def bind(self, problem: Problem) -> Misfit:
        found = first_linear_with_bias(problem.model)
        assert found is not None
        target = input_of(problem.targets, found[0])
        unit = target.square().sum(1).clamp_min(_TINY)
        return Misfit(lambda inputs: (inputs[found[0]].squeeze(1) - target).square().sum(1) / unit, of="inputs")


def input_of(gradients: Tensors, name: str) -> Tensor:
    """The input ``(T, d)`` of layer ``name`` that fits its weights' gradient best, given its biases'; float32."""
    weight, bias = gradients[f"{name}.weight"], gradients[f"{name}.bias"]
    return (bias[:, None] @ weight).squeeze(1) / bias.square().sum(1, keepdim=True).clamp_min(_TINY)
