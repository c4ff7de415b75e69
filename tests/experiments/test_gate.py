from dataclasses import replace

import numpy as np
import pytest

from experiments.gate import broken, limit
from experiments.report.input import UNDEFENDED, per_image, records_of, settings
from fl_sim.core.errors import ConfigError
from tests.experiments import synthetic

WHOLE = synthetic.report()


@pytest.mark.parametrize(
    "text", ["", "psnr > 25", "psnr.p101 > 25", "psnr.best > 25", "speed.max > 1", "psnr.p95 = 25", "psnr.max > many"]
)
def test_what_is_no_limit_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected METRIC.STATISTIC > NUMBER, such as 'psnr.p95 > 25'"):
        limit(text)


@pytest.mark.parametrize(
    ("statistic", "expected"),
    [("min", 1.0), ("p0", 1.0), ("median", 2.5), ("mean", 4.0), ("max", 10.0), ("p95", 8.95), ("p99.9", 9.979)],
)
def test_statistics_are_over_images(statistic: str, expected: float) -> None:
    assert limit(f"psnr.{statistic} > 0").value([1.0, 2.0, 3.0, 10.0]) == pytest.approx(expected)


def test_a_bound_may_have_an_exponent() -> None:
    assert limit("mse.min < 1e-4").bound == 1e-4


def test_a_limit_is_broken_by_each_attack_that_exceeds_it_behind_a_defense() -> None:
    defended = [setting for setting in settings(WHOLE) if setting.defense != UNDEFENDED]
    worst = {
        (setting.label, attack): np.percentile(per_image(records, "psnr"), 95)
        for setting in defended
        for attack, records in records_of(WHOLE, setting).items()
    }
    middle = float(np.median(list(worst.values())))
    told = list(broken(WHOLE, [limit(f"psnr.p95 > {middle:.6f}")]))
    expected = [name for name, value in worst.items() if value > round(middle, 6)]
    assert 0 < len(expected) < len(worst)
    assert len(told) == len(expected)
    assert all(line.startswith(f"{label}, {attack}: ") for line, (label, attack) in zip(told, expected, strict=True))


def test_what_was_not_measured_shows_nothing() -> None:
    unjudged = replace(WHOLE, records=[synthetic.failed(r, "failed", "no memory") for r in WHOLE.records])
    assert all("psnr was not measured" in line for line in broken(unjudged, [limit("psnr.max > 100")]))
    assert all("nothing was judged" in line for line in broken(replace(WHOLE, records=[]), [limit("psnr.max > 100")]))
    assert list(broken(unjudged, [limit("psnr.max > 100")]))


def test_without_a_defended_setting_all_are_limited() -> None:
    cells = [cell for cell in WHOLE.cells if cell["defense"] == UNDEFENDED]
    names = {cell["name"] for cell in cells}
    bare = replace(WHOLE, cells=cells, records=[r for r in WHOLE.records if r["cell"] in names])
    assert list(broken(bare, [limit("psnr.max > 0")]))
    assert not list(broken(bare, [limit("psnr.max > 1000")]))
