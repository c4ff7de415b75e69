"""How long it takes to find images, not steps: the same pictures, sooner."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from types import MappingProxyType
from typing import Any

from attacks import ATTACKS
from attacks.posterior import PosteriorSearch
from benchmarks import tools
from benchmarks.case import Case, case
from benchmarks.curves import curve
from benchmarks.film import Camera, Film
from benchmarks.plan import CNN_IMAGES, SAME
from benchmarks.stopwatch import WAY
from fl_sim.core import heap
from fl_sim.core.seeds import derive
from fl_sim.core.types import Reconstruction
from fl_sim.metrics.image import psnr
from fl_sim.training.local import single_threaded

STEPS, ENOUGH, EVERY = 1000, 25.0, 10  # dB; steps between two frames
UNSIGNED: Mapping[str, Any] = {"steps": 120, "signed": False, "step_size": 0.8}  # found on other images: LOG.md
FEATURES: Mapping[str, Any] = {"steps": 60}  # likewise


@dataclass(frozen=True)
class Way:
    """How images are searched.

    Args:
        tool: ``breaching``, or how our steps are taken, one of ``WAY``.
        options: Of the attack.
        together: Images at a time.
        model: The network.
        attack: Which of ours.
    """

    tool: str
    options: Mapping[str, Any] = field(default_factory=lambda: {"steps": STEPS, **SAME})
    together: int = 1
    model: str = "cnn"
    attack: str = "inverting_gradients"

    def found(self, images: Sequence[int]) -> list[dict[str, Any]]:
        """Of each image: PSNR in the end, and steps and processor seconds to the first guess that is good ENOUGH.

        Seconds, and those of the ``whole`` search, count from when the images that are searched together begin.
        """
        heap.keep_freed()
        return [one for some in _parts(images, self.together) for one in self._of(some)]

    def _of(self, images: Sequence[int]) -> Iterator[dict[str, Any]]:
        cases, cameras = [case(self.model, image) for image in images], [Camera(EVERY) for _ in images]
        with single_threaded():
            guesses = self._searched(images, cases, cameras)
        for image, one, camera, guess in zip(images, cases, cameras, guesses, strict=True):
            way = curve(camera.frames, one.truth.images)
            there = next((place for place, value in enumerate(way.psnr) if value >= ENOUGH), None)
            yield {
                "image": image,
                "psnr": round(psnr(guess.images, one.truth.images).item(), 3),
                "steps": None if there is None else way.iterations[there],
                "seconds": None if there is None else way.seconds[there],
                "whole": way.seconds[-1],
            }

    def _searched(
        self, images: Sequence[int], cases: Sequence[Case], cameras: Sequence[Camera]
    ) -> Sequence[Reconstruction]:
        if self.tool == "breaching":
            ((image, one, camera),) = zip(images, cases, cameras, strict=True)
            return [tools.breaching(one.seen, one.model, {"steps": self.options["steps"]}, camera, image)]
        attack = ATTACKS[self.attack](**self.options)
        assert isinstance(attack, PosteriorSearch)
        filmed, rngs = (
            replace(attack, variables=Film(attack.variables, *cameras)),
            [derive(i, "attack") for i in images],
        )
        with WAY[self.tool]():
            return filmed.batched([one.seen for one in cases], cases[0].model, rngs)


WAYS: Mapping[str, Way] = MappingProxyType(
    {
        "breaching": Way("breaching"),
        "breaching, 200 steps": Way("breaching", {"steps": 200}),
        "fl-sim, breaching's objective, trial by trial": Way("looped"),
        "fl-sim, breaching's objective, 8 together": Way("fl-sim", together=8),
        "fl-sim, breaching's objective, 8 together, compiled": Way("compiled", together=8),
        "fl-sim, its own, 200 steps, 8 together": Way("fl-sim", {"steps": 200}, together=8),
        "fl-sim, its own without signs, 120 steps": Way("fl-sim", UNSIGNED),
        "fl-sim, its own without signs, 120 steps, 8 together": Way("fl-sim", UNSIGNED, together=8),
        "fl-sim, its own without signs, ramp, 8 together": Way("fl-sim", {**UNSIGNED, "schedule": "ramp"}, together=8),
        "feature inversion, 60 steps": Way("fl-sim", FEATURES, attack="feature_inversion"),
        "feature inversion, 60 steps, 8 together": Way("fl-sim", FEATURES, together=8, attack="feature_inversion"),
    }
)
_SAME = {"steps": 120, **SAME}
DEEP: Mapping[str, Way] = MappingProxyType(
    {
        "trial by trial": Way("looped", _SAME, model="convnet"),
        "2 together": Way("fl-sim", _SAME, together=2, model="convnet"),
    }
)


def measure() -> Iterator[tuple[str, dict[str, Any]]]:
    """``cnn``; the images are shared by two processes of one thread each, as the machine's other times are taken."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        halves = list(pool.map(_in_turns, _parts(CNN_IMAGES, len(CNN_IMAGES) // 2)))
    for name, way in WAYS.items():
        yield name, {"together": way.together, "found": [one for half in halves for one in half[name]]}


def _in_turns(images: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
    """Of each way, in turns of eight images, so that a slow minute slows all."""
    for way in WAYS.values():
        replace(way, options={**way.options, "steps": 2}).found(range(way.together))  # what is done once: compiling
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
    for some in _parts(images, 8):
        for name, way in WAYS.items():
            found[name] += way.found(some)
    return found


def deep() -> Iterator[tuple[str, dict[str, Any]]]:
    """``convnet``, 8 images: whether the engine finds what the reference finds. Both at once, so not timed."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for name, found in zip(DEEP, pool.map(Way.found, DEEP.values(), [range(8)] * len(DEEP)), strict=True):
            yield name, {"found": found}


def _parts(images: Sequence[int], many: int) -> list[Sequence[int]]:
    return [images[first : first + many] for first in range(0, len(images), many)]
