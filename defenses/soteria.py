"""Soteria: withhold what the input of one fully connected layer tells of the images."""

from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Generator, Tensor, nn
from torch.nn.functional import one_hot

from defenses.layers import linear_layer
from fl_sim.core.contracts import GradientDefense
from fl_sim.core.part import Unit, part
from fl_sim.core.types import Batch, Tensors
from fl_sim.training.entering import entering
from fl_sim.training.local import State, gradient


@part
class Soteria(GradientDefense):
    """Zero columns of one fully connected layer's weight gradient; all else is sent as it is. arXiv 2012.06043.

    Args:
        rate: Quantile of the scores below which a feature's column is zeroed, in [0, 1]; 0 is no defense. The paper's
            pruning rate is 100 times this.
        layer: The name of a ``torch.nn.Linear`` of the model, such as ``net.fc2``; empty: the model's last one.
        chunk: Features whose derivatives are taken at once. Memory grows with it and with the batch, the result does
            not depend on it but for rounding.

    Feature ``f`` of the layer's input ``r`` ``(N, n)`` scores ``q_f``, the sum over the images ``x`` of
    ``||d r_f / d x||_2 / (r_f + 0.1)``; its column is zeroed where ``|q_f|`` is below the quantile of ``q``. That is so
    for features that are large beside their sensitivity, and for dead ones. A dead ReLU scores 0, and its column is
    zero anyway: fewer columns change than ``rate`` says (:func:`effective_rate`), and where a share of ``rate`` or more
    is dead the quantile is 0, nothing lies below it, and the defense does nothing.

    Scores are those of the released code (jeremy313/Soteria, 1fa5452), found with one Jacobian instead of ``n``
    backward passes. Its images are normalised, ours in [0, 1]: where the channels have one standard deviation the
    columns are the same. Where batch norm is in train mode, an image's derivative counts what it changes in the others'
    features. In FedSGD the zeroed columns tell the server the mask; in FedAvg every step has one of its own.
    """

    surrogate: ClassVar[str] = "inverting_gradients or cosine, dropped=[LAYER.weight]"

    rate: Annotated[float, Field(ge=0, le=1), Unit("quantile of features pruned")]
    layer: str = ""
    chunk: Annotated[PositiveInt, Unit("features at once")] = 128

    def check(self, model: nn.Module) -> None:
        self.layer_of(model)

    def gradient(self, model: nn.Module, weights: Tensors, buffers: Tensors, batch: Batch, rng: Generator) -> Tensors:
        del rng
        state = State(weights, buffers)
        name = f"{self.layer_of(model)}.weight"
        clean = gradient(model, state, batch).tree
        return {**clean, name: clean[name] * self.mask(model, state, batch).to(clean[name])}

    def mask(self, model: nn.Module, state: State, batch: Batch) -> Tensor:
        """Which columns are sent, ``(n,)`` bool."""
        scores = self.scores(model, state, batch)
        threshold = float(np.quantile(scores.cpu().numpy(), self.rate))
        zeroed: Tensor = scores.abs() < threshold
        return ~zeroed

    def scores(self, model: nn.Module, state: State, batch: Batch) -> Tensor:
        """``q``, ``(n,)`` float64; negative or infinite only where the layer's input is negative: not after a ReLU."""
        images = batch.images.detach().requires_grad_()
        features = entering(model, state, model.get_submodule(self.layer_of(model)), images)
        chunks = torch.split(torch.arange(features.shape[1], device=images.device), self.chunk)
        lengths = torch.cat([_derivative_lengths(features, images, chosen) for chosen in chunks], 1)
        return (lengths / (features.detach() + 0.1)).double().sum(0)

    def layer_of(self, model: nn.Module) -> str:
        """The name of the layer that is defended; its weight is this with ``.weight``.

        Raises:
            ConfigError: ``model`` has no such fully connected layer.
        """
        return linear_layer(model, self.layer, "soteria")


def effective_rate(clean: Tensor, sent: Tensor) -> float:
    """Share of the columns of a weight gradient ``(out, n)`` that were changed: not zero before, zero after."""
    before, after = clean.ne(0).any(0), sent.ne(0).any(0)
    return (before & ~after).double().mean().item()


def _derivative_lengths(features: Tensor, images: Tensor, chosen: Tensor) -> Tensor:
    """``||d r_f / d x||_2`` of each image and each chosen feature, ``(N, len(chosen))``."""
    directions = one_hot(chosen, features.shape[1]).to(features)[:, None].expand(-1, len(images), -1)
    (jacobian,) = torch.autograd.grad(features, images, directions, retain_graph=True, is_grads_batched=True)
    lengths: Tensor = jacobian.flatten(2).norm(dim=2)
    return lengths.T
