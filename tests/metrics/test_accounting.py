"""Privacy loss against Opacus' accountants."""

import math
import warnings

import pytest
from opacus.accountants import PRVAccountant, RDPAccountant
from opacus.accountants.analysis.rdp import compute_rdp

from fl_sim.core.types import Protocol
from fl_sim.metrics.accounting import DELTA, epsilon


def foreign(kind: type, multiplier: float, steps: int, delta: float) -> float:
    accountant = kind()
    accountant.history = [(multiplier, 1.0, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the orders of the moments it has tried
        return float(accountant.get_epsilon(delta=delta))


@pytest.mark.parametrize(("multiplier", "steps"), [(20.0, 1), (4.0, 10), (1.0, 1), (1.0, 50), (0.5, 50)])
@pytest.mark.parametrize("delta", [1e-5, 1e-3])
def test_it_is_below_both_upper_bounds_and_close_to_the_better(multiplier: float, steps: int, delta: float) -> None:
    found, prv = epsilon(multiplier, steps, delta), foreign(PRVAccountant, multiplier, steps, delta)
    assert found <= foreign(RDPAccountant, multiplier, steps, delta)
    assert found <= prv <= found + 0.02


@pytest.mark.parametrize("multiplier", [1e-5, 1e-3, 0.03, 30.0, 1e5])
def test_extremes_are_bounded_by_moments(multiplier: float) -> None:
    mu = 10 / multiplier
    assert 0 <= epsilon(multiplier, 100) <= mu**2 / 2 + mu * math.sqrt(2 * math.log(1e5))


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


@pytest.mark.parametrize(("multiplier", "epochs", "published"), [(1.3, 20, 1.34), (0.7, 70, 8.68)])
def test_published_values(multiplier: float, epochs: int, published: float) -> None:
    """MNIST in samples of 256, moments accountant (Bu et al. 2020, figure 4): its bound is met, ours is tighter."""
    rate, orders = 256 / 60000, [1 + x / 10 for x in range(1, 630)]
    steps = round(epochs / rate)
    moments = compute_rdp(q=rate, noise_multiplier=multiplier, steps=steps, orders=orders)
    classical = min(m + math.log(1 / DELTA) / (order - 1) for m, order in zip(moments, orders, strict=True))
    assert classical == pytest.approx(published, rel=0.01)
    assert 0.7 * published < epsilon(multiplier, steps, rate=rate) < published
