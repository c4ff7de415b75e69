"""The laws of noise against scipy, cells of them against quadrature, mixtures and trials against loops."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from fl_sim.core.density import Choice, Interval, LaplaceNoise, Noise, Normal, log_likelihood
from fl_sim.core.seeds import derive
from fl_sim.core.types import Tensors

STD = 0.3
LAWS: dict[str, tuple[Normal | LaplaceNoise, Any]] = {
    "normal": (Normal(STD), stats.norm(scale=STD)),
    "laplace": (LaplaceNoise(STD), stats.laplace(scale=STD)),
}
PRECISE = {torch.float32: 2e-4, torch.float64: 1e-8}
POINTS = [-40.0, -9.0, -3.0, -1.0, -0.1, 0.0, 0.2, 1.0, 4.0, 30.0]  # in units of the law's scale
CELLS = [  # the same, of values at zero
    pytest.param(-40.0, -39.0, id="far left"),
    pytest.param(39.0, 40.0, id="far right"),
    pytest.param(-3.0, -1.0, id="left"),
    pytest.param(1.0, 1.5, id="right"),
    pytest.param(-1.0, 1.0, id="around zero"),
    pytest.param(-0.3, 2.0, id="skewed"),
    pytest.param(-70.0, 50.0, id="everything"),
    pytest.param(-50.0, -2.0, id="a left tail"),
    pytest.param(2.0, 50.0, id="a right tail"),
    pytest.param(-1e-3, 2e-3, id="narrow, at zero"),
    pytest.param(-5.0, -4.999, id="narrow, left"),
    pytest.param(12.0, 12.001, id="narrow, right"),
]
law = pytest.mark.parametrize("name", LAWS)


def one(number: float, dtype: torch.dtype = torch.float64) -> Tensors:
    return {"x": torch.tensor([number], dtype=dtype)}


def of_value(value: Tensor, low: float, high: float, noise: Noise) -> Tensor:
    """Of one entry in one trial, alone."""
    bounds = Interval(one(low, value.dtype), one(high, value.dtype))
    return log_likelihood(bounds, [Choice(1.0, {"x": value.view(1, 1)})], noise).sum()


def mass(of: Any, low: float, high: float) -> float:
    """``log P(low <= x <= high)`` by quadrature, relative to the density at the cell's most likely point."""
    peak = min(max(0.0, low), high)
    points = sorted({low, high, *(p for p in peak + STD * np.array([-9, -3, 0, 3, 9]) if low < p < high)})

    def relative(x: float) -> float:
        return float(np.exp(of.logpdf(x) - of.logpdf(peak)))

    total = sum(integrate.quad(relative, a, b, epsabs=0, epsrel=1e-10)[0] for a, b in itertools.pairwise(points))
    return float(of.logpdf(peak) + np.log(total))


def slope(of: Any, low: float, high: float) -> float:
    """The derivative of :func:`mass` in the value that the cell is seen from, ``(f(low) - f(high)) / P``."""
    ends = [float(np.exp(of.logpdf(x) - mass(of, low, high))) for x in (low, high)]
    return ends[0] - ends[1]


@law
def test_densities_and_distributions_are_scipys_far_into_the_tails(name: str) -> None:
    noise, of = LAWS[name]
    points = torch.tensor(POINTS, dtype=torch.float64) * STD
    assert noise.log_density(points).tolist() == pytest.approx(of.logpdf(points).tolist(), rel=1e-9)
    assert noise.log_below(points).tolist() == pytest.approx(of.logcdf(points).tolist(), rel=1e-9, abs=1e-15)
    single = noise.log_below(points.float()).double()
    assert single.tolist() == pytest.approx(of.logcdf(points).tolist(), rel=1e-5, abs=1e-6)


@law
def test_densities_integrate_to_one_and_have_the_spread_they_say(name: str) -> None:
    noise, of = LAWS[name]
    x = torch.linspace(-40 * STD, 40 * STD, 400_001, dtype=torch.float64)
    density = noise.log_density(x).exp()
    assert torch.trapezoid(density, x).item() == pytest.approx(1, abs=1e-6)
    assert torch.trapezoid(density * x.square(), x).sqrt().item() == pytest.approx(of.std(), rel=1e-6)
    assert noise.std == pytest.approx(of.std())


@law
@pytest.mark.parametrize("dtype", PRECISE, ids=str)
@pytest.mark.parametrize(("low", "high"), CELLS)
def test_a_cells_mass_and_its_slope_are_those_of_quadrature(
    low: float, high: float, dtype: torch.dtype, name: str
) -> None:
    noise, of = LAWS[name]
    value = torch.zeros((), dtype=dtype, requires_grad=True)
    low, high = (float(torch.tensor(end * STD, dtype=dtype)) for end in (low, high))
    found = of_value(value, low, high, noise)
    (derivative,) = torch.autograd.grad(found, value)
    expected, precise = mass(of, low, high), PRECISE[dtype]
    assert found.item() == pytest.approx(expected, rel=precise, abs=precise)
    assert derivative.item() == pytest.approx(slope(of, low, high), rel=10 * precise, abs=precise / STD)


@law
@pytest.mark.parametrize("width", [1e-5, 1e-7])
def test_very_narrow_cells_are_the_density_times_their_width(width: float, name: str) -> None:
    """Eight bits of a small update under noise that is loud beside it; in single precision, as attacks compute."""
    noise, of = LAWS[name]
    for at in (-2.0, 0.1, 1.5):
        value = torch.tensor(-at * STD, requires_grad=True)  # the cell itself is at zero: its ends are exact
        found = of_value(value, -width / 2, width / 2, noise)
        (derivative,) = torch.autograd.grad(found, value)
        assert found.item() == pytest.approx(of.logpdf(at * STD) + np.log(width), abs=1e-3)
        assert derivative.item() == pytest.approx(slope(of, at * STD - 1e-3, at * STD + 1e-3), rel=0.01)


@law
@pytest.mark.parametrize("far", [300.0, 3e3, 3e4, 3e5])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_guess_far_off_is_pulled_back_as_hard_as_it_should(far: float, side: int, name: str) -> None:
    """In single precision: a first guess is often thousands of standard deviations away from its cell."""
    noise, _ = LAWS[name]
    value = torch.tensor(-side * far * STD, requires_grad=True)
    found = of_value(value, -STD, STD, noise)
    (derivative,) = torch.autograd.grad(found, value)
    expected = (far - 1) / STD if name == "normal" else 1 / STD  # by the tail's leading term
    assert derivative.item() == pytest.approx(side * expected, rel=0.01)


@law
@pytest.mark.parametrize("end", ["low", "high"])
def test_a_value_on_a_cells_edge_is_pulled_inside(end: str, name: str) -> None:
    noise, of = LAWS[name]
    low, high = (0.0, STD) if end == "low" else (-STD, 0.0)
    value = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (derivative,) = torch.autograd.grad(of_value(value, low, high, noise), value)
    assert derivative.item() == pytest.approx(slope(of, low, high), rel=1e-6)


@law
def test_where_the_bounds_are_equal_it_is_the_density(name: str) -> None:
    """Entry by entry, whether the bounds are the same tensors or only have the same values."""
    noise, of = LAWS[name]
    low, high = torch.tensor([0.2, -0.1, 0.2, 5.0]).double(), torch.tensor([0.2, 0.3, 0.2, 5.0]).double()
    values = torch.tensor([[0.1, 0.0, 0.2, -9.0]]).double().requires_grad_()
    mixed = log_likelihood(Interval({"x": low}, {"x": high}), [Choice(1.0, {"x": values})], noise)
    exact = [of.logpdf(0.1), of.logpdf(0.0), of.logpdf(14.0)]
    assert mixed.item() == pytest.approx(sum(exact) + mass(of, -0.1, 0.3), rel=1e-7)
    (derivative,) = torch.autograd.grad(mixed.sum(), values)
    assert bool(derivative.isfinite().all())
    same = log_likelihood(Interval({"x": low}, {"x": low}), [Choice(1.0, {"x": values})], noise)
    again = log_likelihood(Interval({"x": low}, {"x": low.clone()}), [Choice(1.0, {"x": values})], noise)
    assert same.item() == pytest.approx(again.item())


SHAPES = {"w": (3, 2), "b": (3,), "scalar": ()}


def drawn(*place: int | str, trials: int | None = None) -> Tensors:
    lead = () if trials is None else (trials,)
    return {k: torch.randn((*lead, *s), generator=derive(1, k, *place)).double() for k, s in SHAPES.items()}


def slowly(observed: Interval, choices: Sequence[Choice], of: Any, trial: int) -> float:
    """Entry by entry, in the open: sums of probabilities times densities or masses."""
    total = 0.0
    for name, shape in SHAPES.items():
        for place in np.ndindex(*shape):
            low, high = observed.low[name][place].item(), observed.high[name][place].item()
            chances = []
            for choice in choices:
                value = choice.values[name][trial][place].item()
                log_p = of.logpdf(low - value) if low == high else mass(of, low - value, high - value)
                chances.append(choice.probability * np.exp(log_p))
            total += np.log(sum(chances))
    return total


@law
@pytest.mark.parametrize("cells", [False, True], ids=["densities", "cells"])
@pytest.mark.parametrize("chances", [(1.0,), (0.7, 0.3), (0.2, 0.5, 0.3)], ids=str)
def test_mixtures_and_trials_are_those_of_a_loop(name: str, chances: tuple[float, ...], cells: bool) -> None:
    noise, of = LAWS[name]
    low = {k: t / 3 for k, t in drawn("seen").items()}
    high = {k: t + 0.2 * (t > 0) for k, t in low.items()} if cells else low  # a cell here, a point there
    choices = [Choice(p, {k: t / 3 for k, t in drawn(i, trials=4).items()}) for i, p in enumerate(chances)]
    found = log_likelihood(Interval(low, high), choices, noise)
    assert found.dtype is torch.float64
    expected = [slowly(Interval(low, high), choices, of, trial) for trial in range(4)]
    assert found.tolist() == pytest.approx(expected, rel=1e-7)


@law
def test_derivatives_of_mixtures_are_those_of_finite_differences(name: str) -> None:
    noise, _ = LAWS[name]
    low = drawn("seen")
    high = {k: t + 0.2 * (t > 0) for k, t in low.items()}

    def total(w: Tensor, b: Tensor, scalar: Tensor) -> Tensor:
        values = {"w": w, "b": b, "scalar": scalar}
        pruned = {k: 0.1 * t for k, t in values.items()}
        return log_likelihood(Interval(low, high), [Choice(0.6, values), Choice(0.4, pruned)], noise)

    point = [t.requires_grad_() for t in drawn("at", trials=2).values()]
    assert torch.autograd.gradcheck(total, point)


def test_an_impossible_choice_neither_counts_nor_pulls() -> None:
    """At 200 standard deviations a density is 0 in any float; its logarithm is not, nor is the other's share of it."""
    at = torch.tensor([[0.5, 60.0]], requires_grad=True)
    seen = {"x": torch.tensor([0.6, 0.6])}
    choices = [Choice(0.5, {"x": at}), Choice(0.5, {"x": torch.tensor([[-60.0, 0.5]])})]
    found = log_likelihood(Interval(seen, seen), choices, Normal(STD))
    alone = 2 * (stats.norm.logpdf(0.1, scale=STD) + np.log(0.5))
    assert found.item() == pytest.approx(alone, rel=1e-5)
    (pull,) = torch.autograd.grad(found.sum(), at)
    assert pull[0].tolist() == pytest.approx([0.1 / STD**2, 0.0], rel=1e-5)
