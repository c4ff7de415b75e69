"""Images that leave the model's batch-norm statistics as training left them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from attacks.priors.base import Prior
from attacks.problem import Problem
from fl_sim.core.errors import UnmetKnowledgeError
from fl_sim.core.part import part
from fl_sim.core.types import Observation, Tensors
from fl_sim.training.local import State, logits_of


@part
class BatchNormStatistics(Prior):
    """``sum over layers of ||mean - running_mean||_2 + ||variance - running_variance||_2``, of a trial's whole batch.

    Mean and (biased) variance are those of each batch-norm layer's input, per channel, in one forward pass at the
    broadcast weights and statistics, in the mode the client used. From DeepInversion (arXiv 1912.08795), used on
    gradients by GradInversion (arXiv 2104.07586). Layers count in the order in which they run.

    Args:
        weight: Of the term; 0.1 in GradInversion.
        first: Multiplies the first layer's part; 10 in the released code of DeepInversion and in breaching, 1 in the
            papers.
    """

    weight: NonNegativeFloat
    first: NonNegativeFloat = 10.0

    def __call__(self, images: Tensor, problem: Problem) -> Tensor:
        heard = [_heard(batch, problem) for batch in images]
        return self.weight * torch.stack([_distance(layers, problem.seen.buffers, self.first) for layers in heard])

    def check(self, seen: Observation, model: nn.Module) -> None:
        if not _layers(seen, model):
            raise UnmetKnowledgeError(
                "the batch-norm prior needs batch normalisation whose running statistics are broadcast, got a model "
                "with none: use a model that has them, such as resnet18 or convnet, or leave this prior out"
            )


@part
class ClientStatistics(Prior):
    """The distance of :class:`BatchNormStatistics` to what the client's own batches had, which it betrays itself.

    Where batch norm trains, the client returns its running statistics: after S steps with momentum m, ``(1 - m)^S`` of
    those it was sent, and for the rest a mean of its batches' (after arXiv 2202.06924). That is exact of one step; of
    several, the guess at the weights that were sent stands for every batch, and for the later weights.

    Args:
        weight, first: As there.
    """

    joins: ClassVar[bool] = False

    weight: NonNegativeFloat
    first: NonNegativeFloat = 1.0

    def __call__(self, images: Tensor, problem: Problem) -> Tensor:
        own = _returned(problem)
        heard = [_heard(batch, problem, correction=1) for batch in images]
        return self.weight * torch.stack([_distance(layers, own, self.first) for layers in heard])

    def check(self, seen: Observation, model: nn.Module) -> None:
        if seen.protocol is None or seen.protocol.batchnorm != "train":
            raise UnmetKnowledgeError(
                "statistics of the client's own batches are returned where batch norm trains, and the steps behind "
                'them are told by the protocol: set batchnorm = "train" and protocol = true, or leave this prior out'
            )
        if not all(isinstance(layer.momentum, float) for layer in _layers(seen, model).values()):
            raise UnmetKnowledgeError("client statistics want batch norm with a momentum: leave this prior out")
        BatchNormStatistics(weight=self.weight).check(seen, model)


def _returned(problem: Problem) -> Tensors:
    """The mean statistics of the client's batches, named like buffers."""
    seen, found = problem.seen, {}
    if not seen.update.buffers:
        raise UnmetKnowledgeError("this client returned no running statistics: leave the prior client_statistics out")
    assert seen.protocol is not None
    steps = seen.protocol.steps(-(-seen.update.num_examples // len(seen.members)))
    for name, layer in _layers(seen, problem.model).items():
        kept = (1 - (layer.momentum or 0.0)) ** steps
        for own in (f"{name}.running_mean", f"{name}.running_var"):
            found[own] = (seen.update.buffers[own] - kept * seen.buffers[own]) / (1 - kept)
    return found


def _heard(batch: Tensor, problem: Problem, correction: int = 0) -> list[tuple[str, Tensor, Tensor]]:
    """What each layer hears of a batch at the broadcast weights, in the order in which they run."""
    seen = problem.seen
    with _listening(_layers(seen, problem.model), correction) as heard:
        logits_of(problem.model, State(seen.broadcast, seen.buffers), batch)
    return heard


def _distance(heard: list[tuple[str, Tensor, Tensor]], buffers: Tensors, first: float) -> Tensor:
    parts: list[Tensor] = [
        torch.linalg.vector_norm(mean - buffers[f"{name}.running_mean"])
        + torch.linalg.vector_norm(variance - buffers[f"{name}.running_var"])
        for name, mean, variance in heard
    ]
    return (first - 1) * parts[0] + torch.stack(parts).sum()


def _layers(seen: Observation, model: nn.Module) -> dict[str, _BatchNorm]:
    """The batch-norm layers whose statistics were broadcast, by name."""
    named = {name: layer for name, layer in model.named_modules() if isinstance(layer, _BatchNorm)}
    return {name: layer for name, layer in named.items() if f"{name}.running_mean" in seen.buffers}


@contextmanager
def _listening(layers: Mapping[str, nn.Module], correction: int) -> Iterator[list[tuple[str, Tensor, Tensor]]]:
    """Inside, each run of a layer adds its name and its input's mean and variance per channel."""
    heard: list[tuple[str, Tensor, Tensor]] = []

    def listen(name: str, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].transpose(0, 1).flatten(1)
        heard.append((name, values.mean(1), values.var(1, correction=correction)))

    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: listen(name, inputs))
        for name, layer in layers.items()
    ]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()
