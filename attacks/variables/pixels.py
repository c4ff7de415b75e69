"""Search over the pixels themselves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Generator, Tensor, nn

from attacks.problem import Guess, Problem
from attacks.variables.base import Point, Variables
from attacks.variables.starts import STARTS, Wanted, image_of
from fl_sim.core.errors import ConfigError, UnmetKnowledgeError
from fl_sim.core.part import part
from fl_sim.core.stochastic import draw_noise, drawing
from fl_sim.core.types import Observation

PIXELS, LOGITS = "pixels", "logits"


@part
class Pixels(Variables):
    """Pixels in the model's normalised space, ``(x - mean) / std`` per channel.

    Args:
        init: ``normal``: N(0, 1) per normalised pixel; ``uniform``: U(0, 1) per pixel; ``patterned``: a random tile,
            repeated; ``mean``: the mean colour; ``dark``, ``light``: black, white; ``image``: one of your own.
        spread: Multiplies the start's distance from the mean colour.
        tile: Side of the tile of ``patterned``, pixels.
        image: Path of a .npy with ``(C, H, W)`` floats in [0, 1], for ``init = "image"``.
        box: Whether images are kept inside [0, 1] after each step.
        labels: ``given``: those granted or inferred; ``joint``: free logits, searched too (DLG), unless granted.
        noise: What a stochastic model drew (a bottleneck's noise, dropout's mask): its ``mean``; ``joint``: searched
            too, from a draw of its own law and at its cost in nats, which wants a likelihood in nats (a mask is
            searched between its two values); ``fresh``: drawn anew at each step, by a generator that the pixels seed.
    """

    init: Literal["normal", "uniform", "patterned", "mean", "dark", "light", "image"] = "normal"
    spread: NonNegativeFloat = 1.0
    tile: PositiveInt = 4
    image: str | None = None
    box: bool = True
    labels: Literal["given", "joint"] = "given"
    noise: Literal["mean", "joint", "fresh"] = "mean"

    def __post_init__(self) -> None:
        if (self.init == "image") != (self.image is not None):
            raise ConfigError(
                f'init = "image" and image, the path of a .npy, belong together, got init = {self.init!r} and '
                f"image = {self.image!r}: give both or neither"
            )

    def check(self, seen: Observation, model: nn.Module) -> None:
        if self.image is not None:
            image_of(Path(self.image), seen.task.image_shape)
        if self.noise != "mean" and not drawing(model):
            raise UnmetKnowledgeError(
                f'draws = "{self.noise}" is for models that draw something, and this one has no stochastic module: '
                'leave draws at "mean", or use a model with one: with dropout, or behind precode'
            )

    def start(self, problem: Problem, trials: int, rng: Generator) -> Point:
        shape = (trials, problem.seen.update.num_examples, *problem.seen.task.image_shape)
        wanted = Wanted(problem=problem, shape=shape, rng=rng, tile=self.tile, image=self.image)
        point = {PIXELS: self.spread * STARTS[self.init](wanted)}
        if self._joint(problem):
            logits = torch.randn(*shape[:2], problem.seen.task.classes, generator=rng)
            point[LOGITS] = logits.to(problem.device)
        if self.noise != "mean":
            point.update(self._drawn(problem, [rng] * trials, shape[1]))
        return point

    def decode(self, point: Point, problem: Problem) -> Guess:
        images = problem.mean + problem.std * point[PIXELS]
        labels = point[LOGITS].softmax(-1) if LOGITS in point else problem.labels.expand(len(images), -1)
        return Guess(images, labels, {name: v for name, v in point.items() if name not in {PIXELS, LOGITS}})

    def project(self, point: Point, problem: Problem) -> Point:
        if self.box:
            low, high = -problem.mean / problem.std, (1 - problem.mean) / problem.std
            point = {**point, PIXELS: point[PIXELS].clamp(low, high)}
        return {**point, **self._allowed(point, problem)}

    def surprise(self, point: Point, problem: Problem) -> Tensor:
        laws = drawing(problem.model) if self.noise == "joint" else {}
        costs = [law.surprise(point[name]).flatten(1).sum(1) for name, law in laws.items()]
        return sum(costs, super().surprise(point, problem))

    def _allowed(self, point: Point, problem: Problem) -> Point:
        """What the model draws, from here on."""
        if self.noise == "fresh":
            rngs = [Generator().manual_seed(int(trial.view(torch.int32).sum())) for trial in point[PIXELS].detach()]
            return self._drawn(problem, rngs, point[PIXELS].shape[1])
        laws = drawing(problem.model) if self.noise == "joint" else {}
        return {name: law.nearest(point[name]) for name, law in laws.items()}

    @staticmethod
    def _drawn(problem: Problem, rngs: Sequence[Generator], images: int) -> Point:
        """Of each trial, by its own generator."""
        each = [draw_noise(problem.model, images, rng) for rng in rngs]
        return {name: torch.stack([one[name] for one in each]).to(problem.device) for name in each[0]}

    def _joint(self, problem: Problem) -> bool:
        return self.labels == "joint" and problem.seen.knowledge.labels is None
