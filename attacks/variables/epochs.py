"""Search the images of each local epoch apart: in what order it took them is not known."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from attacks.problem import Guess, Problem
from attacks.variables.base import Point, Variables
from fl_sim.core.types import Observation


@dataclass(frozen=True, kw_only=True, eq=False)
class Epochs(Variables):
    """Other variables once for each local epoch, whose images are the same in some order (arXiv 2206.12395).

    A variable is ``(T, E, …)``, and a guess has all epochs' images, ``E * N``. What they share whatever the order is
    their mean image, which is what the released code compares too. In the end each epoch's images are matched to the
    first's, class by class, and averaged. One epoch where order cannot matter: a batch is all of the images.

    Args:
        inner: What makes an epoch's images.
        tie: Weight of ``sum over epochs of ||mean image - mean over epochs||^2 / E``, normalised pixels.
    """

    inner: Variables
    tie: float

    def check(self, seen: Observation, model: nn.Module) -> None:
        self.inner.check(seen, model)

    def start(self, problem: Problem, trials: int, rng: Generator) -> Point:
        each = [self.inner.start(problem, trials, rng) for _ in range(epochs(problem))]
        return {name: torch.stack([one[name] for one in each], 1) for name in each[0]}

    def decode(self, point: Point, problem: Problem) -> Guess:
        guess, count = self._inner(self.inner.decode, point, problem), epochs(problem)
        images, labels = (_by_trial(v, count).flatten(1, 2) for v in (guess.images, guess.labels))
        return Guess(images, labels, {name: _by_trial(z, count).flatten(1, 2) for name, z in guess.noise.items()})

    def answer(self, point: Point, problem: Problem) -> Guess:
        guess, count = self._inner(self.inner.answer, point, problem), epochs(problem)
        images = _by_trial(guess.images, count).detach()
        labels = _by_trial(guess.labels, count)
        found = [consensus(own, classes) for own, classes in zip(images, labels, strict=True)]
        return Guess(torch.stack(found), labels[:, 0])

    def project(self, point: Point, problem: Problem) -> Point:
        found: Point = self._inner(self.inner.project, point, problem)
        return {name: _by_trial(v, epochs(problem)) for name, v in found.items()}

    def surprise(self, point: Point, problem: Problem) -> Tensor:
        count = epochs(problem)
        guess: Guess = self._inner(self.inner.decode, point, problem)
        images = (guess.images - problem.mean) / problem.std
        means = _by_trial(images.mean(1), count).flatten(2)
        apart = (means - means.mean(1, keepdim=True)).square().sum((1, 2)) / count
        own: Tensor = self._inner(self.inner.surprise, point, problem)
        total: Tensor = self.tie * apart + own.view(-1, count).sum(1)
        return total

    def only(self, trials: Tensor) -> "Epochs":
        return replace(self, inner=self.inner.only(trials))

    def _inner(self, of: Callable[[Point, Problem], Any], point: Point, problem: Problem) -> Any:
        """Of each epoch as if it were a trial of its own."""
        if len(problem.labels.shape) == 2:
            problem = replace(problem, labels=problem.labels.repeat_interleave(epochs(problem), 0))
        return of({name: v.flatten(0, 1) for name, v in point.items()}, problem)


def _by_trial(values: Tensor, count: int) -> Tensor:
    """``(T * E, …)`` to ``(T, E, …)``."""
    return values.reshape(-1, count, *values.shape[1:])


def epochs(problem: Problem) -> int:
    """That may differ in order."""
    protocol, images = problem.seen.protocol, problem.seen.update.num_examples
    return protocol.local_epochs if protocol is not None and protocol.batch_size < images else 1


def consensus(images: Tensor, labels: Tensor) -> Tensor:
    """Of epochs' images ``(E, N, C, H, W)``, one each ``(N, C, H, W)``: their mean, matched to the first epoch's.

    Args:
        labels: ``(E, N)``, or weights ``(E, N, K)``; images are matched within a class.
    """
    from scipy.optimize import linear_sum_assignment

    classes = labels.argmax(-1) if labels.is_floating_point() else labels
    first = images[0].flatten(1)
    total = images[0].clone()
    for own, kinds in zip(images[1:], classes[1:], strict=True):
        apart = torch.cdist(first, own.flatten(1)).nan_to_num(0.0)
        apart = apart + (1 + apart.max()) * len(first) * (classes[0][:, None] != kinds)
        total += own[torch.as_tensor(linear_sum_assignment(apart.cpu().numpy())[1], device=own.device)]
    return total / len(images)
