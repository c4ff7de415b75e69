"""Device Z, whose gradient is linear in the image: what each predictor says has a closed form."""

from math import log10

import pytest

from defenses.noise import Gaussian, Laplace
from defenses.sparsification import RandomPrune
from experiments.risk import Exposure, InfluenceBound, InversionInfluence, LinearisedPosterior, SignalToNoise
from fl_sim.core.seeds import derive
from tests.attacks import zero
from tests.conftest import TASK
from tests.experiments.risk.exposures import exposed, zero_image

STD = TASK.std[0]
R2 = 0.9  # of the residual, squared


def decibels(error: float) -> float:
    return -10 * log10(error)


@pytest.fixture
def exposure() -> Exposure:
    return exposed(zero.net(), zero_image(), Gaussian(std=0.1))


def test_the_posterior_of_a_linear_network_is_k1s(exposure: Exposure) -> None:
    assert LinearisedPosterior()(exposure).item() == pytest.approx(decibels(STD**2 / (1 + R2 / 0.1**2)))


def test_the_posterior_goes_by_the_noises_variance() -> None:
    found = LinearisedPosterior()(exposed(zero.net(), zero_image(), Laplace(scale=0.1)))
    assert found.item() == pytest.approx(decibels(STD**2 / (1 + R2 / (2 * 0.1**2))))


def test_a_mask_that_is_known_counts_as_it_is_and_else_as_it_is_on_average() -> None:
    """K5: the error with a known mask is the mean of what the kept residuals leave of each pixel."""
    prune = RandomPrune(rate=0.5)
    unknown = exposed(zero.net(), zero_image(), prune, Gaussian(std=0.1))
    assert LinearisedPosterior()(unknown).item() == pytest.approx(decibels(STD**2 / (1 + 0.5 * R2 / 0.1**2)))
    mask = prune.protect(unknown.seen.update, derive(0, "mask")).randomness
    known = exposed(zero.net(), zero_image(), prune, Gaussian(std=0.1), drawn={f"0/{k}": m for k, m in mask.items()})
    kept = mask["mask/net.head.weight"].double()
    errors = STD**2 / (1 + (kept * zero.residual().square()[:, None]).sum(0) / 0.1**2)
    assert LinearisedPosterior()(known).item() == pytest.approx(decibels(errors.mean().item()))


def test_influence_is_what_the_noise_does_to_least_squares(exposure: Exposure) -> None:
    exact = zero.pixels(zero.least_squares(exposure.seen)) - exposure.batch.images[0]
    expected = decibels(exact.square().mean().item())
    assert InversionInfluence(damping=1e-12)(exposure).item() == pytest.approx(expected, abs=1e-4)
    assert InfluenceBound()(exposure).item() == pytest.approx(expected, abs=1e-4)  # all eigenvalues are equal
    assert InversionInfluence(damping=1.0)(exposure).item() == pytest.approx(expected + 20 * log10(2), abs=1e-4)


def test_signal_to_noise_is_the_gradients_square_over_the_noises(exposure: Exposure) -> None:
    image = (exposure.batch.images - TASK.mean[0]) / STD
    signal = R2 * (image.square().sum().item() + 1)  # the bias is a pixel of 1
    assert SignalToNoise()(exposure).item() == pytest.approx(10 * log10(signal / (650 * 0.1**2)), abs=1e-4)
