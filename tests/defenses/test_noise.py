import math

import pytest
import torch
from scipy import stats

from defenses.noise import Gaussian
from fl_sim.core.errors import NoDensityError
from fl_sim.core.knowledge import Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.types import Tensors, Update

K = 200_000


def noise(std: float) -> torch.Tensor:
    zero = Update(delta={"w": torch.zeros(K)}, num_examples=1)
    return Gaussian(std=std).protect(zero, derive(0)).update.delta["w"]


def test_noise_is_the_gaussian_it_says() -> None:
    assert stats.kstest(noise(0.2).numpy(), "norm", args=(0, 0.2)).pvalue > 0.001
    assert stats.kstest(noise(0.2).numpy(), "norm", args=(0, 0.21)).pvalue < 0.001  # the test can tell


def test_equally_shaped_tensors_get_different_noise() -> None:
    two = Update(delta={"a": torch.zeros(50), "b": torch.zeros(50)}, num_examples=1)
    out = Gaussian(std=1.0).protect(two, derive(0)).update.delta
    assert not torch.equal(out["a"], out["b"])


def test_density_equals_scipys() -> None:
    clean: Tensors = {"w": torch.randn(40, generator=derive(1)), "b": torch.randn(3, generator=derive(2))}
    observed: Tensors = {k: t + 0.3 * torch.randn(t.shape, generator=derive(3)) for k, t in clean.items()}
    expected = sum(stats.norm.logpdf(observed[k], clean[k], 0.3).sum() for k in clean)
    found = Gaussian(std=0.3).log_likelihood(observed, clean, Knowledge()).item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_density_is_calibrated_on_what_the_defense_sends() -> None:
    defense, clean = Gaussian(std=0.1), {"w": torch.randn(K, generator=derive(4))}
    sent = defense.protect(Update(delta=clean, num_examples=1), derive(5)).update.delta
    expected = -(K / 2) * (math.log(2 * math.pi * 0.01) + 1)
    assert abs(defense.log_likelihood(sent, clean, Knowledge()).item() - expected) < 4 * math.sqrt(K / 2)
    wrong = Gaussian(std=0.11).log_likelihood(sent, clean, Knowledge()).item()
    assert abs(wrong + (K / 2) * (math.log(2 * math.pi * 0.0121) + 1)) > 4 * math.sqrt(K / 2)


def test_no_noise_has_no_density() -> None:
    with pytest.raises(NoDensityError, match="std 0"):
        Gaussian(std=0.0).log_likelihood({"w": torch.zeros(2)}, {"w": torch.zeros(2)}, Knowledge())
