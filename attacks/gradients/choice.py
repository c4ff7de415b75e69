"""Which way to compute gradients.

By what a model is, not by a clock: a run that is repeated, or resumed, has to find the same bits. What pays where was
measured once (experiments/LOG.md) and stands as a rule: here, that all trials go through the network at once wherever
that is right (a single trial of a small network may take a fifth longer so); in
:mod:`attacks.gradients.winograd` and :mod:`attacks.gradients.layers`, by layer and device.
"""

import logging
from copy import deepcopy

import torch
from torch import Tensor, nn

from attacks.gradients.batched import Batched
from attacks.gradients.factors import dense
from attacks.gradients.looped import Looped
from attacks.gradients.passes import Guess, Passes
from fl_sim.core.trees import global_norm, map_tree
from fl_sim.core.types import Task, Tensors
from fl_sim.training.local import State

_CLOSE = 1e-3  # relative; rounding is 1e-6, and a unit that rounding turns on or off 1e-4
_ROUNDING = 1e-6


def fastest(model: nn.Module, state: State, task: Task) -> Passes:
    """:class:`Batched` where it gives what :class:`Looped` gives on two trials of two images, else the latter.

    Asking the model itself finds what its list of layers does not show: a layer that is used twice, a parameter that is
    used beside its layer, an operation in place. Where the two differ they are asked again in double precision: batch
    norm by the statistics of two images enlarges rounding to a hundredth.
    """
    try:
        batched = Batched.of(model, state)
        if batched is not None and (_same(batched, model, state, task) or _same_doubled(model, state, task)):
            return batched
        reason = "its layers do not tell its gradients whole"
    except Exception as error:  # a model may do anything with its layers
        reason = f"{type(error).__name__}: {error}"
    logging.getLogger(__name__).info("trial by trial: %s", reason)
    return Looped(model, state)


def _same(batched: Batched, model: nn.Module, state: State, task: Task) -> bool:
    some = probe(task, state)
    return agree(dense(batched(some)), Looped(model, state)(some))


def _same_doubled(model: nn.Module, state: State, task: Task) -> bool:
    weights, buffers = (map_tree(Tensor.double, tree) for tree in state)
    exact, there = deepcopy(model).double(), State(weights, buffers)
    batched = Batched.of(exact, there)
    return batched is not None and _same(batched, exact, there, task)


def agree(got: Tensors, expected: Tensors) -> bool:
    """Whether each gradient is the same, relative to itself or, where there is hardly any, to all of them."""
    least = _ROUNDING * global_norm(expected)
    return got.keys() == expected.keys() and all(
        bool((got[name] - g).norm() <= _CLOSE * g.norm() + least) for name, g in expected.items()
    )


def probe(task: Task, state: State) -> Guess:
    """Two trials of two images."""
    some = next(iter(state.weights.values()))
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(2, 2, *task.image_shape, generator=rng, dtype=some.dtype)
    labels = torch.arange(4).view(2, 2) % task.classes
    return Guess(images.to(some.device), labels.to(some.device))
