"""PSNR along the way, of one image and over images."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.film import Frame
from fl_sim.metrics.image import psnr

Values: TypeAlias = NDArray[np.float64]


class Curve(NamedTuple):
    """PSNR in dB after ``iterations`` steps and ``seconds`` of processor time; all of one length, ascending."""

    iterations: list[int]
    seconds: list[float]
    psnr: list[float]


class Band(NamedTuple):
    """Quartiles of PSNR in dB over several curves, at common places ``at``."""

    at: Values
    low: Values
    median: Values
    high: Values


def curve(frames: Sequence[Frame], truth: Tensor) -> Curve:
    """The frames' PSNR against one image ``truth`` ``(1, C, H, W)`` in [0, 1], rounded to 0.001 dB."""
    return Curve(
        [frame.iteration for frame in frames],
        [round(frame.seconds, 3) for frame in frames],
        [round(psnr(frame.images, truth).item(), 3) for frame in frames],
    )


def by_iterations(curves: Sequence[Curve]) -> Band:
    """The curves' band; they must have been filmed at the same iterations."""
    at = np.array(curves[0].iterations, dtype=np.float64)
    return _band(at, np.array([c.psnr for c in curves]))


def by_seconds(curves: Sequence[Curve], places: int = 100) -> Band:
    """The curves' band, each interpolated linearly, from 0 until the first of them ends."""
    at = np.linspace(0, min(c.seconds[-1] for c in curves), places)
    return _band(at, np.array([np.interp(at, c.seconds, c.psnr) for c in curves]))


def _band(at: Values, values: Values) -> Band:
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
    return Band(at, low, median, high)
