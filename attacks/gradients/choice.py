"""Which way to compute gradients."""

import torch
from torch import nn

from attacks.gradients.batched import Batched
from attacks.gradients.factors import dense
from attacks.gradients.looped import Looped
from attacks.gradients.passes import Guess, Passes
from fl_sim.core.trees import flat
from fl_sim.core.types import Task
from fl_sim.training.local import State

_CLOSE = 1e-3  # relative; rounding is 1e-6, and a unit that rounding turns on or off 1e-4


def fastest(model: nn.Module, state: State, task: Task) -> Passes:
    """:class:`Batched` where it gives what :class:`Looped` gives on two trials of two images, else the latter.

    Asking the model itself finds what its list of layers does not show: a layer that is used twice, a parameter that is
    used beside its layer, an operation in place.
    """
    looped, batched = Looped(model, state), Batched.of(model, state)
    if batched is None:
        return looped
    probe = _probe(task, state)
    try:
        answer = batched(probe)
    except (RuntimeError, KeyError):
        return looped
    expected, got = (flat(dense(tree)) for tree in (looped(probe), answer))
    close = (got - expected).norm() <= _CLOSE * expected.norm()
    return batched if close else looped


def _probe(task: Task, state: State) -> Guess:
    some = next(iter(state.weights.values()))
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(2, 2, *task.image_shape, generator=rng, dtype=some.dtype)
    labels = torch.arange(4).view(2, 2) % task.classes
    return Guess(images.to(some.device), labels.to(some.device))
