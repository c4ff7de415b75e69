"""Trial by trial through the model itself: for any model, and the reference for the fast way."""

from collections.abc import Sequence

import torch
from torch import nn

from attacks.gradients.passes import Guess
from fl_sim.core.types import Batch, Tensors
from fl_sim.training.local import State, gradient


class Looped:
    """One gradient a trial, by reverse-over-reverse differentiation."""

    def __init__(self, model: nn.Module, state: State) -> None:
        self._model, self._state = model, state

    def __call__(self, guess: Guess) -> Tensors:
        return stacked([self._gradient(guess, trial) for trial in range(len(guess.images))])

    def _gradient(self, guess: Guess, trial: int) -> Tensors:
        noise = {name: z[trial] for name, z in guess.noise.items()}
        state = State(self._state.weights, {**self._state.buffers, **noise})
        batch = Batch(guess.images[trial], guess.labels[trial])
        return gradient(self._model, state, batch, create_graph=True).tree


def stacked(trees: Sequence[Tensors]) -> Tensors:
    """Trees of trials as one, ``(T, *shape)``."""
    if len(trees) == 1:  # without a copy: weights may be many
        return {name: tree[None] for name, tree in trees[0].items()}
    return {name: torch.stack([tree[name] for tree in trees]) for name in trees[0]}
