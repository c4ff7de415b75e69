"""How long it takes to find images, not steps: the same pictures, sooner."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any

from attacks import ATTACKS
from benchmarks.case import case
from benchmarks.curves import curve
from benchmarks.film import Camera
from benchmarks.plan import CNN_IMAGES
from benchmarks.stopwatch import SAME, WAY, looped
from benchmarks.tools import TOOLS
from fl_sim.core.seeds import derive
from fl_sim.metrics.image import psnr
from fl_sim.training.local import single_threaded

STEPS, ENOUGH = 1000, 25.0  # dB
WAYS: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "breaching": ("breaching", {"steps": STEPS}),
        "fl-sim, breaching's objective, trial by trial": ("fl-sim", {"steps": STEPS, **SAME}),
        "fl-sim, its own, 200 steps": ("fl-sim", {"steps": 200}),
        "fl-sim, its own, 100 steps": ("fl-sim", {"steps": 100}),
    }
)


def measure() -> Iterator[tuple[str, dict[str, Any]]]:
    """PSNR along the way on ``cnn``, image by image, on one thread; seconds are the processor's."""
    for name, tool in {"8 together": "fl-sim", "8 together, compiled": "compiled"}.items():
        yield f"fl-sim, breaching's objective, {name}", {"found": _together(tool)}
    for name, (tool, options) in WAYS.items():
        found = []
        for image in CNN_IMAGES:
            seen, model, truth = case("cnn", image)
            camera = Camera(10)
            with single_threaded(), looped() if name.endswith("trial by trial") else nullcontext():
                guess = TOOLS[tool](seen, model, options, camera, image)
            way = curve(camera.frames, truth.images)
            there = next((place for place, value in enumerate(way.psnr) if value >= ENOUGH), None)
            steps, seconds = (None, None) if there is None else (way.iterations[there], way.seconds[there])
            value = round(psnr(guess.images, truth.images).item(), 3)
            found.append({"image": image, "psnr": value, "steps": steps, "seconds": seconds})
        yield name, {"found": found}


def _together(way: str) -> list[dict[str, Any]]:
    """Not filmed: what the engine that :mod:`benchmarks.stopwatch` times returns."""
    found = []
    attack = ATTACKS["inverting_gradients"](steps=STEPS, **SAME)
    for first in range(CNN_IMAGES.start, CNN_IMAGES.stop, 8):
        images = range(first, first + 8)
        cases = [case("cnn", image) for image in images]
        rngs = [derive(image, "attack") for image in images]
        with single_threaded(), WAY[way]():
            guesses = attack.batched([one.seen for one in cases], cases[0].model, rngs)
        for image, one, guess in zip(images, cases, guesses, strict=True):
            value = round(psnr(guess.images, one.truth.images).item(), 3)
            found.append({"image": image, "psnr": value, "steps": None, "seconds": None})
    return found
