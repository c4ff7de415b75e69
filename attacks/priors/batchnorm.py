"""Images that leave the model's batch-norm statistics as training left them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from attacks.priors.base import Prior
from attacks.problem import Problem
from fl_sim.core.errors import UnmetKnowledgeError
from fl_sim.core.part import part
from fl_sim.core.types import Observation
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
        layers = _layers(problem.seen, problem.model)
        return self.weight * torch.stack([self._distance(batch, layers, problem) for batch in images])

    def check(self, seen: Observation, model: nn.Module) -> None:
        if not _layers(seen, model):
            raise UnmetKnowledgeError(
                "the batch-norm prior needs batch normalisation whose running statistics are broadcast, got a model "
                "with none: use a model that has them, such as resnet18 or convnet, or leave this prior out"
            )

    def _distance(self, batch: Tensor, layers: dict[str, nn.Module], problem: Problem) -> Tensor:
        seen = problem.seen
        with _listening(layers) as heard:
            logits_of(problem.model, State(seen.broadcast, seen.buffers), batch)
        parts: list[Tensor] = [
            torch.linalg.vector_norm(mean - seen.buffers[f"{name}.running_mean"])
            + torch.linalg.vector_norm(variance - seen.buffers[f"{name}.running_var"])
            for name, mean, variance in heard
        ]
        return (self.first - 1) * parts[0] + torch.stack(parts).sum()


def _layers(seen: Observation, model: nn.Module) -> dict[str, nn.Module]:
    """The batch-norm layers whose statistics were broadcast, by name."""
    named = {name: layer for name, layer in model.named_modules() if isinstance(layer, _BatchNorm)}
    return {name: layer for name, layer in named.items() if f"{name}.running_mean" in seen.buffers}


@contextmanager
def _listening(layers: dict[str, nn.Module]) -> Iterator[list[tuple[str, Tensor, Tensor]]]:
    """Inside, each run of a layer adds its name and its input's mean and biased variance per channel."""
    heard: list[tuple[str, Tensor, Tensor]] = []

    def listen(name: str, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].transpose(0, 1).flatten(1)
        heard.append((name, values.mean(1), values.var(1, correction=0)))

    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: listen(name, inputs))
        for name, layer in layers.items()
    ]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()
