"""One image, and the rows of a batch's gradient: weight gradient over bias gradient."""

import math
import time
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from attacks.analytic.first_layer import FirstLayer, first_linear, pictures
from attacks.problem import Problem
from fl_sim.core.contracts import Attack
from fl_sim.core.part import part
from fl_sim.core.types import Budget, Observation, Outcome, Reconstruction

_SWEEPS = 50  # of alternating least squares, which ends after one where nothing is missing
_TINY = 1e-30


@part
class Ratio(Attack):
    """The input of a first fully connected layer: row i of the weight gradient over entry i of the bias gradient.

    For one image every row gives it. For a batch each row is a mixture, and the rows least like those already chosen
    are returned, one an image (:func:`attacks.analytic.rank` takes mixtures apart). Needs a model whose first layer is
    linear with a bias; what comes after it, a stochastic layer say, does not matter. arXiv 1706.04031 (proposition 3),
    arXiv 2003.14053 (proposition D.1).

    Args:
        rows: Of one image's gradient. ``all``: the rank-one matrix nearest to it, which is the likeliest image under
            Gaussian noise s: its MSE is ``s^2 (1 + x^2) / |delta|^2``, normalised, where a row has ``delta_i^2`` below.
            ``kept``: the same, over its entries other than zero: pruned ones are missing, not small. ``best``: the row
            of the largest bias gradient, as in the papers and in released code.

    The loss reported is the relative residual of the rank-N fit to the gradient of that layer: 0 when exact, infinite
    where that gradient is zero or not finite.
    """

    rows: Literal["kept", "all", "best"] = "kept"

    def _check(self, seen: Observation, model: nn.Module) -> None:
        first_linear(model, math.prod(seen.task.image_shape))

    def _reconstruct(self, seen: Observation, model: nn.Module, rng: Generator, device: str) -> Reconstruction:
        began = time.monotonic()
        names = first_linear(model, math.prod(seen.task.image_shape))
        problem = Problem.of(seen, model, rng, device)
        layer = FirstLayer.of(problem, names)
        inputs = self._inputs(layer, seen.update.num_examples)
        finite = layer.says_something() and bool(inputs.isfinite().all())
        return Reconstruction(
            images=pictures(problem, inputs),
            labels=problem.labels.cpu(),
            outcome=Outcome.CONVERGED if finite else Outcome.NON_FINITE,
            loss=layer.misfit(seen.update.num_examples) if finite else math.inf,
            budget=Budget(iterations=0, seconds=time.monotonic() - began, device=device),
        )

    def _inputs(self, layer: FirstLayer, count: int) -> Tensor:
        if not layer.says_something():
            return layer.gradient.new_full((count, layer.gradient.shape[1] - 1), torch.nan)
        if count > 1 or self.rows == "best":
            return distinct_rows(layer.gradient, count)
        return input_of(nearest_rank_one(layer.gradient, missing=self.rows == "kept"))


def input_of(vector: Tensor) -> Tensor:
    """``(1, d)`` of a multiple ``(d + 1,)`` of an input and its 1."""
    return (vector[:-1] / vector[-1])[None]


def distinct_rows(gradient: Tensor, count: int) -> Tensor:
    """``count`` of the inputs that the rows ``(m, d + 1)`` give ``(count, d)``: that of the largest bias gradient, then
    the farthest ones.
    """
    heights = gradient[:, -1]
    order = heights.abs().argsort(descending=True)
    order = order[heights[order] != 0][: 64 * count]
    if not len(order):
        return gradient.new_full((count, gradient.shape[1] - 1), torch.nan)
    inputs = gradient[order, :-1] / heights[order, None]
    chosen = [0]
    while len(chosen) < count:
        chosen.append(int(torch.cdist(inputs, inputs[chosen]).min(1).values.argmax()))
    return inputs[chosen]


def nearest_rank_one(matrix: Tensor, *, missing: bool) -> Tensor:
    """``v`` ``(n,)`` of the ``u v^T`` nearest to ``matrix`` ``(m, n)``; with ``missing`` only where it is not zero.

    Without zeros it is the first right singular vector. With them it is found by alternating least squares from there.
    """
    vector: Tensor = torch.linalg.svd(matrix, full_matrices=False).Vh[0]
    kept = (matrix != 0).to(matrix)
    for _ in range(_SWEEPS if missing and not kept.all() else 0):
        left = (matrix @ vector) / (kept @ vector.square()).clamp_min(_TINY)
        vector = (matrix.T @ left) / (kept.T @ left.square()).clamp_min(_TINY)
    return vector


def ratio(*, rows: Literal["kept", "all", "best"] = "kept") -> Attack:
    """First fully connected layer, exactly, without any search. arXiv 2003.14053, proposition D.1.

    Differs from the paper and from released code, which take one row (``rows = "best"``), in that all rows of one
    image's gradient are used, and in that entries that are zero count as pruned. Undefended all are exact.
    """
    return Ratio(rows=rows)
