"""What an attack's guess looked like along the way, kept so that it can be judged afterwards.

The attack never sees the truth, and neither does the camera: it keeps pictures, and :mod:`benchmarks.curves` compares
them with the image once the attack is over.
"""

import time
from typing import NamedTuple

from torch import Generator, Tensor

from attacks.problem import Guess, Problem
from attacks.variables import Point, Variables


class Frame(NamedTuple):
    """Images ``(N, C, H, W)`` in [0, 1] after ``iteration`` steps and ``seconds`` of processor time."""

    iteration: int
    seconds: float
    images: Tensor


class Camera:
    """Keeps every ``every``-th batch of images that it is shown; the first shown is iteration 0.

    Its seconds are this process's on the processor, so that neighbours on the machine do not count.
    """

    def __init__(self, every: int) -> None:
        self.frames: list[Frame] = []
        self._every = every
        self.start()

    def start(self) -> None:
        """Forget all frames; iterations and seconds count from now."""
        self.frames.clear()
        self._shown, self._began = 0, time.process_time()

    def show(self, images: Tensor) -> None:
        """``images`` ``(N, C, H, W)`` in [0, 1] units; what is kept of them is a clamped copy."""
        if self._shown % self._every == 0:
            seconds = time.process_time() - self._began
            self.frames.append(Frame(self._shown, seconds, images.detach().clamp(0, 1).cpu()))
        self._shown += 1


class Film(Variables):
    """Other variables, with a camera on each trial: each point that a solver projects is a step, the start too.

    Of several observations with one trial each, the first camera is on the first one's.
    """

    def __init__(self, variables: Variables, *cameras: Camera) -> None:
        self._variables, self._cameras = variables, cameras

    def start(self, problem: Problem, trials: int, rng: Generator) -> Point:
        for camera in self._cameras:
            camera.start()
        return self._variables.start(problem, trials, rng)

    def decode(self, point: Point, problem: Problem) -> Guess:
        return self._variables.decode(point, problem)

    def project(self, point: Point, problem: Problem) -> Point:
        projected = self._variables.project(point, problem)
        images = self._variables.decode(projected, problem).images
        if len(images) < len(self._cameras):
            raise ValueError(f"expected a trial for each of {len(self._cameras)} cameras, got {len(images)}")
        for camera, shown in zip(self._cameras, images, strict=False):
            camera.show(shown)
        return projected
