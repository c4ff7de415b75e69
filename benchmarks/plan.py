"""What is run, in which order, on which images."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

CNN_IMAGES = range(32, 64)  # places in the exact test images, the first 517 of CIFAR-10's; 0 to 31 taught us which
# iterate to keep (experiments/LOG.md) and are not reported
CONVNET_IMAGES = range(8)
TUNING_IMAGES = (500, 501)  # in no reported figure
TUNED: Mapping[str, Any] = MappingProxyType({"tv": 1e-4})  # the best of _CANDIDATES, level with 1e-5

SAME: Mapping[str, Any] = MappingProxyType({"cosine": "plain", "tv": 0.2})  # breaching's objective, for speed

_CANDIDATES: tuple[Mapping[str, Any], ...] = (
    {},
    {"cosine": "profile", "tv": 1e-2},
    {"cosine": "plain", "tv": 1e-2},
    {"cosine": "profile", "tv": 1e-4},
    {"cosine": "plain", "tv": 1e-3},
    {"cosine": "profile", "tv": 1e-5},
)


@dataclass(frozen=True)
class Job:
    """One attack on one image.

    Args:
        part: Which question it belongs to.
        tool: One of ``TOOLS``.
        model: Which network.
        image: Place among the exact CIFAR-10 test images; also the seed of the attack's start.
        options: Of the tool, with ``steps``.
        every: Steps between two frames.
    """

    part: str
    tool: str
    model: str
    image: int
    options: Mapping[str, Any]
    every: int = 20


def _convnet(tool: str, options: Mapping[str, Any], image: int) -> Job:
    return Job("convnet", tool, "convnet", image, {"steps": 2000, **options})


PARTS: Mapping[str, tuple[Job, ...]] = MappingProxyType(
    {
        "cnn": tuple(Job("cnn", "fl-sim", "cnn", image, {"steps": 1000}, every=10) for image in CNN_IMAGES),
        "tuning": tuple(
            Job("tuning", "fl-sim", "convnet", image, {"steps": 300, **options})
            for options in _CANDIDATES
            for image in TUNING_IMAGES
        ),
        "convnet": tuple(_convnet(tool, {}, image) for image in CONVNET_IMAGES for tool in ("breaching", "fl-sim")),
        "tuned": tuple(_convnet("fl-sim", TUNED, image) for image in CONVNET_IMAGES),
    }
)
