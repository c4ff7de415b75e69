"""Search over the pixels themselves."""

from typing import Literal

import torch
from pydantic import NonNegativeFloat
from torch import Generator

from attacks.problem import Problem
from attacks.variables.base import Guess, Point, Variables
from fl_sim.core.part import part

PIXELS, LOGITS = "pixels", "logits"


@part
class Pixels(Variables):
    """Pixels in the model's normalised space, ``(x - mean) / std`` per channel.

    Args:
        init: ``normal``: N(0, 1) per normalised pixel; ``uniform``: U(0, 1) per pixel; ``mean``: the mean colour.
        spread: Multiplies the random part of the start.
        box: Whether images are kept inside [0, 1] after each step.
        labels: ``given``: those granted or inferred; ``joint``: free logits, searched too (DLG), unless granted.
    """

    init: Literal["normal", "uniform", "mean"] = "normal"
    spread: NonNegativeFloat = 1.0
    box: bool = True
    labels: Literal["given", "joint"] = "given"

    def start(self, problem: Problem, trials: int, rng: Generator) -> Point:
        shape = (trials, problem.seen.update.num_examples, *problem.seen.task.image_shape)
        if self.init == "uniform":
            pixels = (torch.rand(shape, generator=rng).to(problem.device) - problem.mean) / problem.std
        else:
            pixels = torch.randn(shape, generator=rng).to(problem.device) * (self.init == "normal")
        point = {PIXELS: self.spread * pixels}
        if self._joint(problem):
            logits = torch.randn(*shape[:2], problem.seen.task.classes, generator=rng)
            point[LOGITS] = logits.to(problem.device)
        return point

    def decode(self, point: Point, problem: Problem) -> Guess:
        images = problem.mean + problem.std * point[PIXELS]
        if LOGITS in point:
            return Guess(images, point[LOGITS].softmax(-1))
        return Guess(images, problem.labels.expand(len(images), -1))

    def project(self, point: Point, problem: Problem) -> Point:
        if not self.box:
            return point
        low, high = -problem.mean / problem.std, (1 - problem.mean) / problem.std
        return {**point, PIXELS: point[PIXELS].clamp(low, high)}

    def _joint(self, problem: Problem) -> bool:
        return self.labels == "joint" and problem.seen.knowledge.labels is None
