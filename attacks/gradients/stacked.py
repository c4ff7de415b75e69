"""Gradients of trials that each have weights of their own."""

import logging

import torch
from torch import nn
from torch.func import vmap

from attacks.gradients.choice import agree, probe
from attacks.gradients.looped import Looped, stacked
from attacks.gradients.passes import Guess
from fl_sim.core.trees import map_tree
from fl_sim.core.types import Batch, Task, Tensors
from fl_sim.training.local import State, gradient, loss_of


class Stacked:
    """Gradients at weights ``(T, *shape)``, differentiable in weights and guess.

    Trials go through the network at once (``vmap``), and the sum of their losses is differentiated: no trial's loss
    depends on another's weights. Where the network cannot be vectorised so, as a probe finds, they go one by one.
    Batch norm is as in ``model``'s mode; its running statistics are those of ``state``, and their update, on which no
    gradient of the same mode depends, is dropped.
    """

    def __init__(self, model: nn.Module, state: State, task: Task) -> None:
        self._model, self._buffers = model, state.buffers
        self._together = self._vectorises(state, task)

    def __call__(self, weights: Tensors, guess: Guess, *, create_graph: bool = True) -> Tensors:
        """``(T, *shape)``; as :func:`fl_sim.training.local.gradient`."""
        if self._together and len(guess.images) > 1:
            return self._at_once(weights, guess, create_graph=create_graph)
        return stacked([self._alone(weights, guess, t, create_graph) for t in range(len(guess.images))])

    def _at_once(self, weights: Tensors, guess: Guess, *, create_graph: bool) -> Tensors:
        def loss(own: Tensors, batch: Batch, buffers: Tensors) -> torch.Tensor:
            return loss_of(self._model, State(own, buffers), batch)[0]

        weights = {
            name: w if create_graph and w.requires_grad else w.detach().requires_grad_() for name, w in weights.items()
        }
        trials = len(guess.images)
        buffers = {**{name: b.expand(trials, *b.shape) for name, b in self._buffers.items()}, **guess.noise}
        losses = vmap(loss)(weights, Batch(guess.images, guess.labels), buffers)
        grads = torch.autograd.grad(losses.sum(), list(weights.values()), create_graph=create_graph)
        return dict(zip(weights, grads, strict=True))

    def _alone(self, weights: Tensors, guess: Guess, trial: int, create_graph: bool) -> Tensors:
        noise = map_tree(lambda z: z[trial], guess.noise)
        state = State(map_tree(lambda w: w[trial], weights), {**self._buffers, **noise})
        batch = Batch(guess.images[trial], guess.labels[trial])
        return gradient(self._model, state, batch, create_graph=create_graph).tree

    def _vectorises(self, state: State, task: Task) -> bool:
        guess = probe(task, state)
        weights = map_tree(lambda w: w.expand(len(guess.images), *w.shape), state.weights)
        try:
            if agree(self._at_once(weights, guess, create_graph=True), Looped(self._model, state)(guess)):
                return True
            reason = "its gradients differ"
        except Exception as error:  # a model may do anything with its layers
            reason = f"{type(error).__name__}: {error}"
        logging.getLogger(__name__).info("weights of their own, trial by trial: %s", reason)
        return False


class AtGuess:
    """Passes at the weights that a guess names."""

    def __init__(self, model: nn.Module, state: State, task: Task) -> None:
        self._gradients = Stacked(model, state, task)

    def __call__(self, guess: Guess) -> Tensors:
        return self._gradients(guess.weights, guess)
