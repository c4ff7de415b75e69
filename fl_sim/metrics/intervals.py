"""Means with their uncertainty."""

import math
from collections.abc import Hashable, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from fl_sim.core.errors import FlSimError


class Interval(NamedTuple):
    """A mean with its two-sided 95 % interval; the bounds are ``None`` where one value allows none."""

    mean: float
    low: float | None
    high: float | None


def mean_interval(values: Sequence[float], groups: Sequence[Hashable] | None = None) -> Interval:
    """Student's t interval of the mean, in the unit of ``values``; these are taken as independent.

    Args:
        values: At least one, all finite.
        groups: One key per value, such as the image it belongs to: each group's mean then counts as one value, so
            that ten seeds on one image do not pass for ten images.
    """
    if not values or not all(map(math.isfinite, values)):
        raise FlSimError(f"expected at least one value, all finite, got {list(values)[:8]}: report failures by name")
    if groups is not None:
        values = group_means(values, groups)
    mean = fmean(values)
    if len(values) == 1:
        return Interval(mean, None, None)
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def group_means(values: Sequence[float], groups: Sequence[Hashable]) -> list[float]:
    """The mean of each group, in the order in which groups first appear."""
    by_group: dict[Hashable, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        by_group.setdefault(group, []).append(value)
    return [fmean(members) for members in by_group.values()]
