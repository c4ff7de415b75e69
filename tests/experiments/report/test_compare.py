"""Several runs as one page."""

from dataclasses import replace
from functools import cache

import pytest

from experiments.report import ReportInput, render_comparison, summarise, summarise_comparison
from experiments.report.compare import differences, merged
from fl_sim.core.errors import ConfigError
from tests.experiments import synthetic
from tests.experiments.page import Page


@cache
def runs() -> dict[str, ReportInput]:
    one = synthetic.report(rounds=(1, 5), seeds=(0,))
    study = {**one.study, "federation": {**one.study["federation"], "learning_rate": 0.2}, "seed": 8}
    return {"first": one, "second": replace(synthetic.report(defenses=("none",), rounds=(1, 5)), study=study)}


def test_each_run_keeps_its_numbers_and_equal_settings_lie_side_by_side() -> None:
    rows = summarise(merged(runs()))
    assert [row["axes"]["run"] for row in rows if row["defense"] == "none"] == ["first", "first", "second", "second"]
    for name, report in runs().items():
        mine = [row["psnr"] for row in rows if row["axes"]["run"] == name]
        assert mine == [row["psnr"] for row in summarise(report)]


def test_what_differs_is_said() -> None:
    found = {one.key: (one.values, one.caution) for one in differences(runs())}
    assert found == {
        "seed": (["7", "8"], "other images, other weights"),
        "federation.learning_rate": (["0.1", "0.2"], ""),
    }


def test_the_page_is_whole_and_shows_both() -> None:
    html = render_comparison(runs())
    text = Page(html).text
    assert "<script" not in html
    assert "federation.learning_rate 0.1 0.2" in text
    assert "topk(0.1), run first" in text
    assert summarise_comparison(runs())["runs"]["second"]["by_round"]


def test_runs_on_other_images_are_refused() -> None:
    other = runs()["second"]
    other = replace(other, study={**other.study, "data": {"name": "mnist"}})
    with pytest.raises(ConfigError, match=r"data\.name: first has digits; second has mnist: report them one by one"):
        merged({"first": runs()["first"], "second": other})


def test_runs_judged_by_another_delta_are_refused() -> None:
    other = runs()["second"]
    other = replace(other, records=[{**record, "delta": 4.0} for record in other.records])
    with pytest.raises(ConfigError, match=r"expected one delta.* first has 8\.0; second has 4\.0"):
        merged({"first": runs()["first"], "second": other})
