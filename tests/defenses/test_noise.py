"""Noise defenses, held against samples of themselves: what they add, and what they say they add."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from scipy import stats
from torch import Tensor

from defenses.noise import Gaussian, Laplace
from fl_sim.core.contracts import Defense
from fl_sim.core.density import Choice, Interval, LaplaceNoise, Normal, log_likelihood
from fl_sim.core.errors import NoDensityError
from fl_sim.core.seeds import derive
from fl_sim.core.types import Tensors, Update

K = 200_000
ZERO = Update(delta={"w": torch.zeros(K)}, num_examples=1)


def added(defense: Defense, images: int = 1) -> Tensor:
    return defense.protect(replace(ZERO, num_examples=images), derive(0)).update.delta["w"]


LAWS: dict[str, tuple[Callable[[float], Defense], Any]] = {
    "gaussian": (lambda spread: Gaussian(std=spread), stats.norm),
    "laplace": (lambda spread: Laplace(scale=spread), stats.laplace),
}
law = pytest.mark.parametrize("name", LAWS)


@law
def test_noise_is_of_the_law_it_says(name: str) -> None:
    make, of = LAWS[name]
    noise = added(make(0.2)).numpy()
    assert stats.kstest(noise, of(scale=0.2).cdf).pvalue > 0.001
    assert stats.kstest(noise, of(scale=0.21).cdf).pvalue < 0.001  # the test can tell
    tolerance = 4 * math.sqrt((of.stats(moments="k") + 2) / K)
    assert noise.var() == pytest.approx(of(scale=0.2).var(), rel=float(tolerance))


@law
def test_equally_shaped_tensors_get_different_noise(name: str) -> None:
    two = Update(delta={"a": torch.zeros(50), "b": torch.zeros(50)}, num_examples=1)
    out = LAWS[name][0](1.0).protect(two, derive(0)).update.delta
    assert abs(torch.corrcoef(torch.stack([out["a"], out["b"]]))[0, 1].item()) < 4 / math.sqrt(50)


@law
def test_noise_is_added_to_the_update(name: str) -> None:
    shifted = replace(ZERO, delta={"w": torch.full((K,), 3.0)})
    out = LAWS[name][0](0.2).protect(shifted, derive(0)).update.delta["w"]
    assert (out - 3 - added(LAWS[name][0](0.2))).abs().max() < 1e-6


@pytest.mark.parametrize(("averaging", "std"), [("central", 0.2), ("per_example", 0.1)])
def test_of_four_examples_the_noise_is_central_or_the_mean_of_their_own(
    averaging: Literal["central", "per_example"], std: float
) -> None:
    """K16."""
    defense = Gaussian(std=0.2, averaging=averaging)
    assert added(defense, images=4).std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * K))
    assert defense.noise(4) == Normal(std)


def test_per_example_noise_is_what_four_noisy_examples_average_to() -> None:
    each = torch.stack([Gaussian(std=0.2).protect(ZERO, derive(i)).update.delta["w"] for i in range(4)])
    at_once = added(Gaussian(std=0.2, averaging="per_example"), images=4)
    assert stats.ks_2samp(each.mean(0).numpy(), at_once.numpy()).pvalue > 0.001
    assert stats.ks_2samp(each[0].numpy(), at_once.numpy()).pvalue < 0.001


@pytest.mark.parametrize(("defense", "std"), [(Gaussian(std=0.2), 0.2), (Laplace(scale=0.2), 0.2 * math.sqrt(2))])
def test_the_figures_are_those_of_the_noise_and_the_signal(defense: Defense, std: float) -> None:
    update = Update(delta={"w": torch.full((K,), 3.0)}, num_examples=1)
    protected = defense.protect(update, derive(0))
    assert protected.stats["noise_std"] == pytest.approx(std)
    assert protected.stats["signal_norm"] == pytest.approx(3 * math.sqrt(K), rel=1e-5)
    measured = (protected.update.delta["w"] - 3).norm().item()
    assert protected.stats["noise_norm"] == pytest.approx(measured, rel=0.02)


@law
def test_the_density_equals_scipys(name: str) -> None:
    clean: Tensors = {"w": torch.randn(40, generator=derive(1)), "b": torch.randn(3, generator=derive(2))}
    observed: Tensors = {k: t + 0.3 * torch.randn(t.shape, generator=derive(3)) for k, t in clean.items()}
    make, of = LAWS[name]
    expected = sum(of.logpdf(observed[k], clean[k], 0.3).sum() for k in clean)
    noise = make(0.3).noise(1)
    assert noise is not None
    found = log_likelihood(Interval(observed, observed), [Choice(1.0, {k: t[None] for k, t in clean.items()})], noise)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_a_defense_that_adds_noise_leaves_no_list_of_choices() -> None:
    clean = {"w": torch.ones(1, 2)}
    for loud in (Gaussian(std=0.1), Laplace(scale=0.1)):
        with pytest.raises(NoDensityError, match="before noise has no density"):
            loud.choices(clean, {})
    for silent in (Gaussian(std=0.0), Laplace(scale=0.0)):
        assert silent.noise(1) is None
        assert silent.choices(clean, {}) == (Choice(1.0, clean),)


def test_each_laws_noise_is_said_to_be_that_law() -> None:
    assert Gaussian(std=0.2).noise(7) == Normal(0.2)
    assert Laplace(scale=0.2).noise(7) == LaplaceNoise(0.2)
