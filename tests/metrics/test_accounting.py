"""Privacy loss against the closed form of Gaussian mechanisms and against published values."""

import math

import numpy as np
import pytest
from opacus.accountants import PRVAccountant, RDPAccountant
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

from fl_sim.core.types import Protocol
from fl_sim.metrics.accounting import DELTA, epsilon


def exact(multiplier: float, steps: int, delta: float) -> float:
    """Of Gaussian mechanisms without sampling: Gaussian differential privacy (arXiv 1905.02383, Corollary 2.13)."""
    mu = math.sqrt(steps) / multiplier

    def over(value: float) -> float:
        return float(ndtr(mu / 2 - value / mu) - np.exp(value + log_ndtr(-mu / 2 - value / mu)) - delta)

    return float(brentq(over, 0, 1e5))


@pytest.mark.parametrize(("multiplier", "steps"), [(20.0, 1), (4.0, 10), (1.0, 1), (1.0, 50), (0.5, 50), (0.05, 5)])
def test_it_is_an_upper_bound_and_close_to_the_closed_form(multiplier: float, steps: int) -> None:
    expected = exact(multiplier, steps, DELTA)
    assert expected <= epsilon(multiplier, steps) <= 1.02 * expected + 0.02


def test_sampling_is_worth_what_is_published() -> None:
    """Noise 1.1, batches of 256 of 60,000, 60 epochs: 2.60 by moments (TensorFlow Privacy)."""
    found = epsilon(1.1, 60 * 60_000 // 256, rate=256 / 60_000)
    assert 2.3 < found < 2.6
    assert found < epsilon(1.1, 60 * 60_000 // 256)


def test_without_noise_nothing_is_private_and_without_steps_all_is() -> None:
    assert epsilon(0.0, 3) == math.inf
    assert epsilon(0.0, 0) == epsilon(1.0, 0) == 0
    assert epsilon(1.0, 3) > epsilon(1.0, 2) > epsilon(2.0, 2)
    assert epsilon(1.0, 2, delta=1e-7) > epsilon(1.0, 2, delta=1e-3)


def test_a_poisson_sampled_round_costs_what_opacus_says_step_by_step() -> None:
    """Three rounds of two epochs over 40 images in samples of 4."""
    slow = {"rdp": RDPAccountant(), "prv": PRVAccountant()}
    for _ in range(3 * 2 * 10):
        for accountant in slow.values():
            accountant.step(noise_multiplier=1.1, sample_rate=0.1)
    expected = min(accountant.get_epsilon(delta=DELTA) for accountant in slow.values())
    protocol = Protocol(mode="fedavg", batch_size=4, local_epochs=2, sampling="poisson")
    assert epsilon(1.1, 3 * protocol.steps(40), rate=protocol.rate(40)) == pytest.approx(expected, rel=1e-6)
