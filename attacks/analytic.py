"""Attacks that need no search: the image can be read off the gradient."""

import math
import time

import torch
from torch import Generator, Tensor, nn

from attacks.problem import Problem
from fl_sim.core.contracts import Attack
from fl_sim.core.errors import UnmetKnowledgeError
from fl_sim.core.part import part
from fl_sim.core.types import Budget, Observation, Outcome, Reconstruction


@part
class Ratio(Attack):
    """The input of a first fully connected layer: row i of the weight gradient over entry i of the bias gradient.

    For one image every row gives it (the largest bias gradient is used); for a batch each row is a mixture, and the
    rows least like those already chosen are returned, one an image. Needs a model whose first layer is linear with a
    bias. arXiv 1706.04031 (proposition 3), arXiv 2003.14053 (proposition D.1).

    The loss reported is the relative residual of the rank-N fit to the gradient of that layer: 0 when exact, infinite
    where that gradient is zero or not finite.
    """

    def _reconstruct(self, seen: Observation, model: nn.Module, rng: Generator, device: str) -> Reconstruction:
        began = time.monotonic()
        weight, bias = first_linear(model, math.prod(seen.task.image_shape))
        problem = Problem.of(seen, model, rng, device)
        rows, heights = problem.target[weight], problem.target[bias]
        chosen = distinct_rows(rows, heights, seen.update.num_examples)
        images = problem.mean + problem.std * chosen.view(-1, *seen.task.image_shape)
        layer = torch.cat([rows, heights[:, None]], 1)
        finite = bool(layer.isfinite().all() and images.isfinite().all())
        return Reconstruction(
            images=images.nan_to_num(0.5, 1.0, 0.0).clamp(0, 1).cpu(),
            labels=problem.labels.cpu(),
            outcome=Outcome.CONVERGED if finite else Outcome.NON_FINITE,
            loss=_residual(layer, seen.update.num_examples) if finite else math.inf,
            budget=Budget(iterations=0, seconds=time.monotonic() - began, device=device),
        )


def first_linear(model: nn.Module, inputs: int) -> tuple[str, str]:
    """Names of the weight and bias of a first layer that is linear in the whole image.

    Raises:
        UnmetKnowledgeError: The first layer with weights is another one.
    """
    name, layer = next((n, m) for n, m in model.named_modules() if next(m.parameters(recurse=False), None) is not None)
    if not isinstance(layer, nn.Linear) or layer.bias is None or layer.in_features != inputs:
        raise UnmetKnowledgeError(
            f"the ratio attack needs a first layer that is Linear({inputs}, ...) with a bias; this model's is {layer}: "
            "use the model softmax or mlp, or another attack"
        )
    return f"{name}.weight", f"{name}.bias"


def distinct_rows(rows: Tensor, heights: Tensor, count: int) -> Tensor:
    """``count`` of the inputs ``rows / heights`` ``(count, d)``: that of the largest height, then the farthest ones."""
    order = heights.abs().argsort(descending=True)
    order = order[heights[order] != 0][: 64 * count]
    if not len(order):
        return rows.new_full((count, rows.shape[1]), torch.nan)
    inputs = rows[order] / heights[order, None]
    chosen = [0]
    while len(chosen) < count:
        chosen.append(int(torch.cdist(inputs, inputs[chosen]).min(1).values.argmax()))
    return inputs[chosen]


def _residual(matrix: Tensor, rank: int) -> float:
    spectrum = torch.linalg.svdvals(matrix)
    return float(spectrum[rank:].norm() / spectrum.norm().clamp_min(1e-30))


def ratio() -> Attack:
    """First fully connected layer, exactly, without any search. arXiv 2003.14053, proposition D.1."""
    return Ratio()
