"""Search inside a generator: its latents and features, or its weights."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator as Draws
from torch import Tensor
from torch.func import functional_call, vmap

from attacks.generators import Generator, State, group
from attacks.generators.fit import fitted
from attacks.problem import Guess, Problem
from attacks.variables.base import Point, Variables
from attacks.variables.projection import onto_l1_ball
from fl_sim.core.types import Tensors


class Generated(Variables):
    """What of a generator is searched, from where a search before it ended: it starts there."""

    @abstractmethod
    def reached(self, point: Point) -> State:
        """The generator's state at a point."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Inside(Generated):
    """Entries of a generator's state before one of its stages; the others are held (arXiv 2308.04699).

    Args:
        state: Before stage ``place``; its rows are images, trial by trial.
        images: Of each trial.
        names: The entries that are searched, from where they are in ``state``.
        radii: Of the l1 ball around that, in which an image's entry stays; entries without one are free.
        penalty: Of ``-log p`` of the latents under N(0, I), in nats.
    """

    generator: Generator
    place: int
    state: State
    images: int
    names: Sequence[str]
    radii: Mapping[str, float]
    penalty: float = 0.0

    def start(self, problem: Problem, trials: int, rng: Draws) -> Point:
        del problem, rng
        return {name: self.state[name].view(trials, self.images, *self.state[name].shape[1:]) for name in self.names}

    def decode(self, point: Point, problem: Problem) -> Guess:
        return _guess(self.generator(self.reached(point), self.place), problem)

    def reached(self, point: Point) -> State:
        return {**self.state, **{name: v.flatten(0, 1) for name, v in point.items()}}

    def project(self, point: Point, problem: Problem) -> Point:
        del problem
        return {**point, **{name: self._near(name, point[name], radius) for name, radius in self.radii.items()}}

    def surprise(self, point: Point, problem: Problem) -> Tensor:
        latents = [v for name, v in point.items() if group(name) == "latent"] if self.penalty else []
        costs = [self.penalty * v.flatten(1).square().sum(1) / 2 for v in latents]
        return sum(costs, super().surprise(point, problem))

    def only(self, trials: Tensor) -> "Inside":
        return replace(self, state=rows_of(self.state, trials, self.images))

    def _near(self, name: str, value: Tensor, radius: float) -> Tensor:
        centre = self.state[name]
        moved = value.flatten(0, 1) - centre
        return (centre + onto_l1_ball(moved.flatten(1), radius).view_as(centre)).view_as(value)


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights(Generated):
    """A generator's weights, what goes into it held (arXiv 2110.14962, 1912.10557).

    Args:
        state: Before the first stage; as of :class:`Inside`.
        images: Of each trial.
        weights: Where to start: of each trial a set for each image ``(T, N, *shape)``, or one for all
            ``(T, 1, *shape)``.
    """

    generator: Generator
    state: State
    images: int
    weights: Tensors

    def start(self, problem: Problem, trials: int, rng: Draws) -> Point:
        del problem, trials, rng
        return self.weights

    def decode(self, point: Point, problem: Problem) -> Guess:
        sets = {name: v.flatten(0, 1) for name, v in point.items()}
        count = len(next(iter(sets.values())))
        state = {name: v.view(count, -1, *v.shape[1:]) for name, v in self.state.items()}

        def made(own: Tensors, rows: State) -> Tensor:
            found: Tensor = functional_call(self.generator, dict(own), (rows,))
            return found

        return _guess(vmap(made)(sets, state).flatten(0, 1), problem)

    def reached(self, point: Point) -> State:
        del point
        return self.state

    def project(self, point: Point, problem: Problem) -> Point:
        del problem
        return point

    def only(self, trials: Tensor) -> "Weights":
        kept = {name: v[trials] for name, v in self.weights.items()}
        return replace(self, state=rows_of(self.state, trials, self.images), weights=kept)


def rows_of(state: State, trials: Tensor, images: int) -> State:
    """The rows of some trials, by place."""
    device = next(iter(state.values())).device
    rows = (trials[:, None] * images + torch.arange(images)).flatten().to(device)
    return {name: v[rows] for name, v in state.items()}


def _guess(images: Tensor, problem: Problem) -> Guess:
    seen = problem.seen
    shaped = fitted(images, seen.task.image_shape).view(-1, seen.update.num_examples, *seen.task.image_shape)
    return Guess(shaped, problem.labels.expand(len(shaped), -1))
