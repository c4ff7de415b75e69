"""Rank correlations and their intervals, against scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from fl_sim.core.errors import FlSimError
from fl_sim.metrics.ranks import rank_correlation

RNG = np.random.default_rng(3)
FIRST: list[float] = RNG.normal(size=40).round(1).tolist()  # with ties
SECOND: list[float] = (np.array(FIRST) + RNG.normal(size=40)).round(1).tolist()
ONES = list(range(40))


def test_it_is_scipys() -> None:
    assert rank_correlation(FIRST, SECOND, ONES).value == pytest.approx(stats.spearmanr(FIRST, SECOND).statistic)


def test_the_interval_is_scipys_percentile_bootstrap() -> None:
    found = rank_correlation(FIRST, SECOND, ONES)
    expected = stats.bootstrap(
        (FIRST, SECOND), lambda a, b: stats.spearmanr(a, b).statistic, paired=True, vectorized=False,
        n_resamples=2000, method="percentile", rng=1,
    ).confidence_interval  # fmt: skip
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.03)
    assert found == rank_correlation(FIRST, SECOND, ONES)


def test_repeats_of_one_client_do_not_narrow_the_interval() -> None:
    once, thrice = rank_correlation(FIRST, SECOND, ONES), rank_correlation([*FIRST] * 3, [*SECOND] * 3, ONES * 3)
    assert thrice == pytest.approx(once)


def test_few_clients_have_no_interval_and_equal_values_no_correlation() -> None:
    found = rank_correlation([1.0, 2.0, 4.0, 3.0], [1.0, 2.0, 3.0, 4.0], [1, 2, 3, 4])
    assert found.value == pytest.approx(0.8)
    assert found.low is found.high is None
    assert rank_correlation([1.0] * 6, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], ONES[:6]).value is None


@pytest.mark.parametrize("values", [[], [1.0, math.nan]], ids=["none", "nan"])
def test_what_has_no_rank_is_refused(values: list[float]) -> None:
    with pytest.raises(FlSimError, match="finite"):
        rank_correlation(values, values, ONES[: len(values)])
