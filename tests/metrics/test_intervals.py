import math

import pytest
from scipy import stats

from fl_sim.core.errors import FlSimError
from fl_sim.core.seeds import derive_int
from fl_sim.metrics.intervals import mean_interval

VALUES = [derive_int(0, i) / 2**63 for i in range(12)]


def test_it_is_scipys_t_interval() -> None:
    low, high = stats.ttest_1samp(VALUES, 0).confidence_interval(0.95)
    assert mean_interval(VALUES) == pytest.approx((sum(VALUES) / 12, low, high))


def test_one_value_has_no_bounds() -> None:
    assert mean_interval([3.5]) == (3.5, None, None)


def test_repeats_of_one_image_do_not_narrow_the_interval() -> None:
    repeated = VALUES * 10
    images = list(range(12)) * 10
    assert mean_interval(repeated, images) == pytest.approx(mean_interval(VALUES))
    assert mean_interval(repeated, ["one"] * 120)[1:] == (None, None)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_what_has_no_mean_is_refused(values: list[float]) -> None:
    with pytest.raises(FlSimError, match="finite"):
        mean_interval(values)


def test_every_value_needs_a_group() -> None:
    with pytest.raises(ValueError, match="zip"):
        mean_interval([1.0, 2.0], ["a"])
