"""First images of a search, in the model's normalised space: zero is the mean colour."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Generator, Tensor

from attacks.problem import Problem
from fl_sim.core.errors import ConfigError, MissingDataError


@dataclass(frozen=True, kw_only=True, eq=False)
class Wanted:
    """What a start is asked for.

    Args:
        shape: ``(T, N, C, H, W)``.
        rng: A CPU generator.
        tile: Side of a repeated pattern, pixels.
        image: Path of an image.
    """

    problem: Problem
    shape: tuple[int, int, int, int, int]
    rng: Generator
    tile: int
    image: str | None

    def normalised(self, images: Tensor) -> Tensor:
        """Images in [0, 1] of a shape that fits, as ``shape``."""
        problem = self.problem
        return ((images.to(problem.device) - problem.mean) / problem.std).expand(self.shape)


Start: TypeAlias = Callable[[Wanted], Tensor]


def normal(wanted: Wanted) -> Tensor:
    """N(0, 1) per pixel."""
    return torch.randn(wanted.shape, generator=wanted.rng).to(wanted.problem.device)


def uniform(wanted: Wanted) -> Tensor:
    """U(0, 1) per pixel, before normalising."""
    return wanted.normalised(torch.rand(wanted.shape, generator=wanted.rng))


def patterned(wanted: Wanted) -> Tensor:
    """A tile of N(0, 1), repeated over the image: breaching's ``patterned-4``, after Wei et al. (arXiv 2004.10397)."""
    height, width = wanted.shape[-2:]
    side = wanted.tile
    tile = torch.randn(*wanted.shape[:3], side, side, generator=wanted.rng).to(wanted.problem.device)
    return tile.repeat(1, 1, 1, -(-height // side), -(-width // side))[..., :height, :width]


def mean(wanted: Wanted) -> Tensor:
    """The mean colour."""
    return torch.zeros(wanted.shape, device=wanted.problem.device)


def dark(wanted: Wanted) -> Tensor:
    """Black."""
    return wanted.normalised(torch.zeros(()))


def light(wanted: Wanted) -> Tensor:
    """White."""
    return wanted.normalised(torch.ones(()))


def image(wanted: Wanted) -> Tensor:
    """One image from a file, for all of the batch."""
    return wanted.normalised(image_of(Path(wanted.image or ""), wanted.problem.seen.task.image_shape))


def image_of(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """``(C, H, W)`` float32 in [0, 1] from a ``.npy``.

    Raises:
        MissingDataError: There is no file.
        ConfigError: It does not hold floats in [0, 1] of this shape.
    """
    import numpy as np

    advice = f"write one with numpy.save, floats {shape} in [0, 1], unnormalised"
    if not path.is_file():
        raise MissingDataError(f"there is no file {path}, the image to start from: {advice}")
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path} should be a .npy of plain numbers, got {error}: {advice}") from error
    if array.shape != shape or array.dtype.kind != "f":
        raise ConfigError(f"{path} should hold floats of shape {shape}, got {array.dtype} {array.shape}: {advice}")
    if not ((array >= 0) & (array <= 1)).all():
        raise ConfigError(f"{path} should be in [0, 1], got {array.min():g} to {array.max():g}: {advice}")
    return torch.from_numpy(array.astype(np.float32))


STARTS: Mapping[str, Start] = MappingProxyType(
    {
        "normal": normal,
        "uniform": uniform,
        "patterned": patterned,
        "mean": mean,
        "dark": dark,
        "light": light,
        "image": image,
    }
)
