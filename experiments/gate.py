"""``--fail-if``: a limit on what may leak, for pipelines."""

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from experiments.report.input import UNDEFENDED, ReportInput, Setting, per_image, records_of, settings
from fl_sim.core.errors import ConfigError

METRICS = ("psnr", "ssim", "lpips", "mse", "distance")
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = MappingProxyType(
    {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
)
_NAMED: Mapping[str, float] = MappingProxyType({"min": 0.0, "median": 50.0, "max": 100.0})
_NUMBER = r"\d+(?:\.\d+)?"
_FORM = re.compile(rf"\s*(\w+)\.(mean|min|median|max|p{_NUMBER})\s*(>=|<=|>|<)\s*(-?{_NUMBER}(?:e-?\d+)?)\s*")


class Limit(NamedTuple):
    """What must not be: ``psnr.p95 > 25``. Percentiles are over images, interpolated linearly; ``mean`` is the mean."""

    text: str
    metric: str
    percentile: float | None  # None: the mean
    exceeds: Callable[[float, float], bool]
    bound: float

    def value(self, images: list[float]) -> float:
        return float(np.mean(images) if self.percentile is None else np.percentile(images, self.percentile))


def limit(text: str) -> Limit:
    """``METRIC.STATISTIC OPERATOR NUMBER``; statistics are ``mean``, ``median``, ``min``, ``max``, ``p0`` to ``p100``.

    Raises:
        ConfigError: It is not of that form.
    """
    found = _FORM.fullmatch(text)
    metric, statistic, sign, bound = found.groups() if found else ("", "p0", ">", "0")
    percentile = float(statistic[1:]) if statistic[0] == "p" else _NAMED.get(statistic)
    if metric not in METRICS or (percentile or 0) > 100:
        raise ConfigError(
            f"--fail-if: expected METRIC.STATISTIC > NUMBER, such as 'psnr.p95 > 25', got {text!r}; metrics: "
            f"{', '.join(METRICS)}; statistics: mean, median, min, max, p0 to p100; operators: {', '.join(_OPERATORS)}"
        )
    return Limit(text, metric, percentile, _OPERATORS[sign], float(bound))


def broken(report: ReportInput, limits: list[Limit]) -> Iterator[str]:
    """What breaks a limit, in words: attack by attack, in every setting that is not just the undefended control.

    A limit on what was not measured is broken too: nothing was shown.
    """
    for setting in judged_settings(report):
        found = records_of(report, setting)
        if not found:
            yield f"{setting.label}: nothing was judged"
        for attack, records in found.items():
            for one in limits:
                images = per_image(records, one.metric)
                if not images:
                    yield f"{setting.label}, {attack}: {one.text}: {one.metric} was not measured"
                elif one.exceeds(value := one.value(images), one.bound):
                    yield f"{setting.label}, {attack}: {one.text}: it is {value:.4g} over {len(images)} images"


def judged_settings(report: ReportInput) -> list[Setting]:
    """Those with a defense; all of them where none has one."""
    every = settings(report)
    return [setting for setting in every if setting.defense != UNDEFENDED] or every
