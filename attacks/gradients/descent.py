"""A client's local steps, run on a guess and differentiated through."""

from collections.abc import Callable, Sequence
from math import ceil, sqrt
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks

from attacks.gradients.passes import Guess
from attacks.gradients.stacked import Stacked
from fl_sim.core.errors import FlSimError
from fl_sim.core.seeds import derive
from fl_sim.core.trees import map_tree
from fl_sim.core.types import Protocol, Task, Tensors
from fl_sim.training.local import State


class Moving(NamedTuple):
    """Where each trial is in its descent, ``(T, *shape)``; no velocity: momentum is 0, or no step is taken yet."""

    weights: Tensors
    velocity: Tensors


class Descent:
    """The mean gradient that would have moved the weights as ``protocol`` moves them on each trial's images.

    That is the weights' change over ``scale``, what a constant gradient of 1 would have made. A guess has the client's
    images, which are used again in each epoch, or those of all epochs, one after the other. In what order an epoch
    takes them is not known: one draw of the client's own law, the same for every trial, stands for it.

    Args:
        state: What the client was sent.
        images: Of the client, N.
        whole: Most steps of which everything is kept for the derivative. Of more, only what about ``sqrt(steps)``
            segments begin with, and the last one; the others are run again, one at a time (arXiv 1604.06174).
    """

    def __init__(
        self, model: nn.Module, state: State, task: Task, protocol: Protocol, images: int, scale: float, whole: int
    ) -> None:
        self._gradients = Stacked(model, state, task)
        self._start, self._protocol, self._images, self._scale = state.weights, protocol, images, scale
        self._places = minibatches(protocol, images)
        steps = len(self._places)
        length = steps if steps <= whole else ceil(sqrt(steps))
        self._segments = [range(first, min(first + length, steps)) for first in range(0, steps, length)]

    def __call__(self, guess: Guess) -> Tensors:
        trials, given = guess.images.shape[:2]
        if given not in {self._images, self._images * self._protocol.local_epochs}:
            raise FlSimError(f"expected a guess of {self._images} images, or as many an epoch, got {given}")
        start = map_tree(lambda w: w.expand(trials, *w.shape), self._start)
        moving = Moving(start, {})
        for segment in self._segments:
            moving = self._segment(segment, moving, guess)
        return {name: (w - start[name]) / self._scale for name, w in moving.weights.items()}

    def _segment(self, steps: Sequence[int], moving: Moving, guess: Guess) -> Moving:
        if steps is self._segments[-1]:
            return self._run(steps, moving, guess, create_graph=True)
        names, drawn = list(moving.weights), list(guess.noise)

        def run(create_graph: bool, images: Tensor, labels: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
            noise = dict(zip(drawn, rest, strict=False))
            begun = _moving(names, rest[len(drawn) :])
            ended = self._run(steps, begun, Guess(images, labels, noise), create_graph=create_graph)
            return (*ended.weights.values(), *ended.velocity.values())

        given = (guess.images, guess.labels, *guess.noise.values())
        found = _Recomputed.apply(run, *given, *moving.weights.values(), *moving.velocity.values())
        return _moving(names, found)

    def _run(self, steps: Sequence[int], moving: Moving, guess: Guess, *, create_graph: bool) -> Moving:
        rate, momentum = self._protocol.learning_rate, self._protocol.momentum
        weights, velocity = moving
        for step in steps:
            slope = self._gradients(weights, self._batch(guess, step), create_graph=create_graph)
            velocity = {k: momentum * velocity[k] + g for k, g in slope.items()} if velocity else slope
            weights = {k: w - rate * velocity[k] for k, w in weights.items()}
            velocity = velocity if momentum else {}
        return Moving(weights, velocity)

    def _batch(self, guess: Guess, step: int) -> Guess:
        places = self._places[step].to(guess.images.device)
        if guess.images.shape[1] == self._images:
            places = places % self._images
        noise = {name: z[:, places] for name, z in guess.noise.items()}
        return Guess(guess.images[:, places], guess.labels[:, places], noise)


def minibatches(protocol: Protocol, images: int) -> list[Tensor]:
    """Places of each step's images among those of all epochs, ``epoch * images + image``."""
    rng = derive(0, "order of a client")
    orders = [
        torch.randperm(images, generator=rng) if protocol.batch_size < images else torch.arange(images)
        for _ in range(protocol.local_epochs)
    ]
    return [
        epoch * images + part for epoch, order in enumerate(orders) for part in torch.split(order, protocol.batch_size)
    ]


def _moving(names: Sequence[str], values: Sequence[Tensor]) -> Moving:
    """Back from weights and, if there are any, velocities, one after the other."""
    weights, velocity = values[: len(names)], values[len(names) :]
    return Moving(dict(zip(names, weights, strict=True)), dict(zip(names, velocity, strict=False)))


def _same(tensor: Tensor) -> Tensor:
    return tensor


_Run: TypeAlias = Callable[..., tuple[Tensor, ...]]


class _Recomputed(torch.autograd.Function):
    """``run(create_graph, *inputs)``, of which only the inputs are kept: it is run again to be differentiated.

    ``torch.utils.checkpoint`` is not for functions that differentiate inside, under ``torch.autograd.grad``.
    """

    @staticmethod
    def forward(ctx: Any, run: _Run, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.run = run
        ctx.save_for_backward(*inputs)
        with torch.enable_grad(), saved_tensors_hooks(_same, _same):  # nothing inside is kept, nor counted as kept
            return tuple(t.detach() for t in run(False, *(t.detach() for t in inputs)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[1:]
        inputs = [t.detach().requires_grad_(need) for t, need in zip(ctx.saved_tensors, wanted, strict=True)]
        with torch.enable_grad():
            outputs = ctx.run(True, *inputs)
        asked = [t for t in inputs if t.requires_grad]
        found = iter(torch.autograd.grad(outputs, asked, slopes, allow_unused=True))
        return (None, *(next(found) if need else None for need in wanted))
