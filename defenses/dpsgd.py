"""Differentially private SGD: each example's gradient is clipped, then noise is added to their mean."""

import math
from typing import Annotated, Self

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Generator, nn

from defenses.clipping import Clip, signal_length
from fl_sim.core.contracts import ExampleDefense
from fl_sim.core.density import Noise, Normal
from fl_sim.core.part import Unit, part
from fl_sim.core.trees import add_normal, flat, map_tree
from fl_sim.core.types import Batch, Tensors, Update
from fl_sim.training.local import State, example_gradients


@part
class DpSgd(ExampleDefense):
    """``(sum_i clip(g_i) + N(0, noise_multiplier^2 clip^2)) / N``; arXiv 1607.00133.

    Args:
        clip: Largest L2 norm of one example's gradient, in gradient units (``max_grad_norm``).
        noise_multiplier: Noise std over ``clip``; 0 clips only.

    The mean's noise has std ``noise_multiplier * clip / N``: it shrinks with N, where per-example noise shrinks with
    ``sqrt(N)``. What is guaranteed (:mod:`defenses.privacy`) is amplified where ``sampling = "poisson"``, N then being
    the size expected; of an empty batch there is the noise alone.
    """

    clip: Annotated[PositiveFloat, Unit("L2, gradient units")]
    noise_multiplier: Annotated[NonNegativeFloat, Unit("std over clip")]

    def gradient(self, model: nn.Module, weights: Tensors, buffers: Tensors, batch: Batch, rng: Generator) -> Tensors:
        if not len(batch.labels):
            return add_normal(map_tree(torch.zeros_like, weights), self._std(1), rng)
        examples = example_gradients(model, State(weights, buffers), batch)
        joined = map_tree(lambda t: t[0], self.join(map_tree(lambda t: t[None], examples)))
        return add_normal(joined, self._std(len(batch.labels)), rng)

    def join(self, examples: Tensors) -> Tensors:
        trials, count = next(iter(examples.values())).shape[:2]
        clipped = Clip(norm=self.clip).shortened(map_tree(lambda t: t.flatten(0, 1), examples))
        return map_tree(lambda t: t.view(trials, count, *t.shape[1:]).mean(1), clipped)

    @classmethod
    def inferred(cls, received: Update, noise: float) -> Self:
        """Noise by the small entries, the clip by the length of the rest: as if all clipped examples were orthogonal.

        For one example that its clip shortened this is exact but for the noise.
        """
        std, count = Normal.behind(flat(received.delta)).std, received.num_examples
        signal = signal_length(flat(received.delta), std) or signal_length(flat(received.delta), 0.0) or 1.0
        clip = signal * math.sqrt(count)
        return cls(clip=clip, noise_multiplier=math.sqrt(max(0.0, std**2 - noise**2)) * count / clip)

    def noise(self, num_examples: int) -> Noise | None:
        return Normal(self._std(num_examples)) if self.noise_multiplier else None

    def _std(self, num_examples: int) -> float:
        return self.noise_multiplier * self.clip / num_examples
