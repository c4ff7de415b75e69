"""What a stack of mechanisms does to an update, as a density that an adversary can use (arXiv 2111.04706).

Read forward, mechanisms make choices about each entry (kept or pruned, clipped), then noise is added; read backward,
what was coarsened afterwards (rounded, cut off) bounds what went in. Entries are independent given the choices, hence

    log p(observed | clean) = sum over entries of log sum over choices of P(choice) P(low <= value + noise <= high)

with a density instead of the probability where low = high. Where a stack has no noise, this is a point mass: the
adversary then supposes a little Gaussian noise, at the place where it costs least.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log, pi, sqrt
from statistics import NormalDist
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.special import log_ndtr

from fl_sim.core.types import Tensors

LEAST = 1e-3  # of a scale, below which none is fitted
SMALL = 0.1  # share of entries that noise is read from


def small_size(entries: Tensor) -> float:
    """The size below which a share ``SMALL`` of the entries other than zero is; 0 where there is none.

    Noise is read from it: gradients have many entries that are zero or nearly so, which then hold the noise alone.
    """
    sizes = entries[entries != 0].abs()
    return sizes.kthvalue(max(1, round(SMALL * len(sizes)))).values.item() if len(sizes) else 0.0


class Noise(Protocol):
    """The law of one entry's noise, symmetric about zero."""

    def quick(self, near: Tensor, far: Tensor) -> Tensor:
        """For which cells, from ``near`` to ``far`` with their middle at or above zero, ``log_quick`` will do."""

    def log_quick(self, near: Tensor, far: Tensor, chosen: Tensor) -> Tensor:
        """``log P(near <= noise <= far)`` in the entries' own precision, good to 2e-5; 0 where not ``chosen``."""

    def log_density(self, residual: Tensor) -> Tensor:
        """``log p(residual)`` in nats, entry by entry."""

    def log_densities(self, residual: Tensor) -> Tensor:
        """The sum of ``log_density`` over all but the first dimension, ``(T,)`` float64, in fewer passes."""

    def log_below(self, residual: Tensor) -> Tensor:
        """``log P(noise <= residual)``, accurate far below zero."""

    @property
    def std(self) -> float:
        """Standard deviation."""

    def log_profile(self, residuals: Tensors) -> Tensor:
        """The largest ``log p`` of residuals ``(T, *shape)`` under any scale, ``(T,)`` float64: a profile likelihood.

        Scales below ``LEAST`` of this law's own are left out: at none, a perfect guess would be infinitely likely.
        """


@dataclass(frozen=True, slots=True)
class Normal:
    """N(0, std^2)."""

    std: float

    @classmethod
    def behind(cls, entries: Tensor) -> "Normal":
        """The law of ``entries`` ``(k,)``, if the small ones are noise alone; the others make its scale too large."""
        return cls(small_size(entries) / NormalDist().inv_cdf((1 + SMALL) / 2))

    def quick(self, near: Tensor, far: Tensor) -> Tensor:
        return (near < 4.5 * self.std) & (far - near > 0.05 * self.std) & (near.dtype == torch.float32)

    def log_quick(self, near: Tensor, far: Tensor, chosen: Tensor) -> Tensor:
        unit = self.std * sqrt(2)
        mass = (torch.erfc(near / unit) - torch.erfc(far / unit)) / 2
        return torch.where(chosen, mass, 1.0).log()

    def log_density(self, residual: Tensor) -> Tensor:
        return residual.square() * (-0.5 / self.std**2) - 0.5 * log(2 * pi * self.std**2)

    def log_densities(self, residual: Tensor) -> Tensor:
        squares = residual.square().reshape(len(residual), -1).sum(1).double()
        return squares * (-0.5 / self.std**2) - 0.5 * log(2 * pi * self.std**2) * residual[0].numel()

    def log_below(self, residual: Tensor) -> Tensor:
        below: Tensor = log_ndtr(residual / self.std)
        return below

    def log_profile(self, residuals: Tensors) -> Tensor:
        squares, count = _total(residuals, Tensor.square)
        variance = (squares.detach() / count).clamp_min((LEAST * self.std) ** 2)
        return squares * (-0.5 / variance) - 0.5 * count * (2 * pi * variance).log()


@dataclass(frozen=True, slots=True)
class LaplaceNoise:
    """Density ``exp(-|x| / scale) / (2 scale)``: standard deviation ``scale * sqrt(2)``."""

    scale: float

    @classmethod
    def behind(cls, entries: Tensor) -> "LaplaceNoise":
        """As :meth:`Normal.behind`."""
        return cls(-small_size(entries) / log(1 - SMALL))

    @property
    def std(self) -> float:
        return self.scale * sqrt(2)

    def quick(self, near: Tensor, far: Tensor) -> Tensor:
        return (near < 10 * self.scale) & (far - near > 0.05 * self.scale) & (near.dtype == torch.float32)

    def log_quick(self, near: Tensor, far: Tensor, chosen: Tensor) -> Tensor:
        beside, beyond = (torch.exp(-end.abs() / self.scale) / 2 for end in (near, far))
        mass = torch.where(near > 0, beside, 1 - beside) - beyond
        return torch.where(chosen, mass, 1.0).log()

    def log_density(self, residual: Tensor) -> Tensor:
        return residual.abs() * (-1 / self.scale) - log(2 * self.scale)

    def log_densities(self, residual: Tensor) -> Tensor:
        sizes = residual.abs().reshape(len(residual), -1).sum(1).double()
        return sizes * (-1 / self.scale) - log(2 * self.scale) * residual[0].numel()

    def log_below(self, residual: Tensor) -> Tensor:
        units = residual / self.scale
        above = torch.log1p(-0.5 * (-torch.where(units < 0, 0.0, units)).exp())
        return torch.where(units < 0, units - log(2), above)

    def log_profile(self, residuals: Tensors) -> Tensor:
        sizes, count = _total(residuals, Tensor.abs)
        scale = (sizes.detach() / count).clamp_min(LEAST * self.scale)
        return -sizes / scale - count * (2 * scale).log()


def _total(residuals: Tensors, size: Callable[[Tensor], Tensor]) -> tuple[Tensor, int]:
    """The sum of each trial's sizes, ``(T,)`` float64, and of how many entries."""
    sums = [size(t).reshape(len(t), -1).sum(1).double() for t in residuals.values()]
    return torch.stack(sums).sum(0), sum(t[0].numel() for t in residuals.values())


class Choice(NamedTuple):
    """One thing that may have become of each entry: ``(T, *shape)`` values, and the chance of it, in (0, 1]."""

    probability: float
    values: Tensors


class Interval(NamedTuple):
    """Entry by entry, between what and what a value was, finite; the same tensors where it is known exactly."""

    low: Tensors
    high: Tensors


def log_likelihood(observed: Interval, choices: Sequence[Choice], noise: Noise) -> Tensor:
    """``log p(observed | choices, noise)`` in nats: one number a trial, ``(T,)`` float64, differentiable in values.

    The probabilities of ``choices`` sum to 1.
    """
    total: list[Tensor] = []
    for name, high in observed.high.items():
        low = observed.low[name]
        if len(choices) == 1:
            total.append(_log_masses(low, high, choices[0].values[name], noise))
            continue
        terms = [log(c.probability) + _log_mass(low, high, c.values[name], noise) for c in choices]
        total.append(torch.logsumexp(torch.stack(terms), 0).reshape(len(terms[0]), -1).sum(1).double())
    return torch.stack(total).sum(0)


def _log_masses(low: Tensor, high: Tensor, value: Tensor, noise: Noise) -> Tensor:
    """The sum of :func:`_log_mass` over each trial's entries, ``(T,)``; most of it in single precision."""
    if low is high:
        return noise.log_densities(value - high)
    flat, low, high = value.reshape(len(value), -1), low.reshape(-1), high.reshape(-1)
    near, far = _turned(low - flat, high - flat)
    quick = noise.quick(near, far)
    sums = noise.log_quick(near, far, quick).sum(1).double()
    trial, entry = (~quick).nonzero(as_tuple=True)
    rest = _log_mass(low[entry], high[entry], flat[trial, entry], noise).double()
    return sums.index_add(0, trial, rest)


def _turned(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The ends of cells, mirrored where their middle is below zero; a tail's mass is accurate on one side only."""
    above = left + right >= 0
    return torch.where(above, left, -right), torch.where(above, right, -left)


def _log_mass(low: Tensor, high: Tensor, value: Tensor, noise: Noise) -> Tensor:
    """``(T, *shape)``: of values ``(T, *shape)`` between bounds ``(*shape)``; a density where the bounds are equal."""
    if low is high:
        return noise.log_density(high - value)
    exact = low == high
    low, high, value = low.double(), high.double(), value.double()  # float32 has no slope far from a cell
    left, right = low - value, high - value
    mirrored = left > 0  # a tail's mass is a difference of small numbers only on the left
    left, right = torch.where(mirrored, -right, left), torch.where(mirrored, -left, right)
    below_right = noise.log_below(torch.where(exact, 1.0, right))
    gap = below_right - noise.log_below(torch.where(exact, 0.0, left))
    cell = below_right + torch.log(-torch.expm1(-gap.clamp_min(1e-12)))
    return torch.where(exact, noise.log_density(high - value), cell)
