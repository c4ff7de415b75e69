"""Expected adversarial risk: how often a reconstruction is farther off than an adversary would accept."""

import math
from collections.abc import Hashable, Sequence
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from fl_sim.metrics.image import check_pair
from fl_sim.metrics.intervals import group_means

_COARSE = 0.1  # of a pixel's range: an error of 20 dB
_Z = 1.959964


class Share(NamedTuple):
    """A share of ``n`` with its 95 % interval (Wilson), all in [0, 1]."""

    value: float
    low: float
    high: float


def distance(guess: Tensor, truth: Tensor, std: Sequence[float]) -> Tensor:
    """L2 distance of each normalised image to its original, ``(N,)``; images ``(N, C, H, W)`` in [0, 1].

    Args:
        std: By which each channel is normalised.
    """
    check_pair(guess, truth)
    scaled = (guess - truth) / torch.tensor(std).view(-1, 1, 1)
    return scaled.square().flatten(1).sum(1).sqrt()


def default_delta(shape: Sequence[int], std: Sequence[float]) -> float:
    """The distance of an error of 0.1 (20 dB) at every pixel of images ``(C, H, W)``."""
    return _COARSE * math.sqrt(math.prod(shape[1:]) * sum(1 / s**2 for s in std))


def risk(distances: Sequence[float], delta: float, groups: Sequence[Hashable] | None = None) -> Share:
    """``P(|x - x'| > delta)``: the share of ``distances`` above ``delta`` (arXiv 2111.04706); 1 is safe, 0 is not.

    Args:
        groups: One key per distance, such as the image it is of: each group's share then counts as one value, and the
            interval is that of as many values as there are groups.
    """
    far = [float(d > delta) for d in distances]
    each = far if groups is None else group_means(far, groups)
    n, value = len(each), fmean(each)
    middle, spread = value + _Z**2 / (2 * n), _Z * math.sqrt(value * (1 - value) / n + _Z**2 / (4 * n**2))
    scale = 1 + _Z**2 / n
    return Share(value, max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale))
