import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from statistics import fmean, median
from typing import Any

import pytest
from scipy import stats

from defenses.privacy import Guarantee
from experiments.report import ReportInput, markdown, render, summarise, units
from fl_sim.metrics.accounting import DELTA, epsilon
from tests.experiments import synthetic
from tests.experiments.page import Page

WHOLE = synthetic.report()
SINGLE = synthetic.report(rounds=(1,), seeds=(0,))
EMPTY = replace(WHOLE, records=[], training={}, pictures=[], question="")
FAILED = replace(WHOLE, records=[synthetic.failed(r, "failed", "no memory") for r in WHOLE.records])
ONE_IMAGE = synthetic.report(rounds=(1,), seeds=(0,), batch=1)
NO_CELLS = replace(EMPTY, cells=[])
KINDS = {
    "whole": WHOLE, "single round": SINGLE, "empty": EMPTY, "some failed": synthetic.with_failures(WHOLE),
    "all failed": FAILED, "one image": ONE_IMAGE, "no cells": NO_CELLS,
}  # fmt: skip
GAUSSIAN = "gaussian(std=0.1)"


def change(report: ReportInput, edit: Callable[[dict[str, Any]], dict[str, Any]], **where: object) -> ReportInput:
    """The same report with the records that match ``where`` edited."""
    matches = [all(record[key] == value for key, value in where.items()) for record in report.records]
    assert any(matches)
    return replace(report, records=[edit(r) if m else r for r, m in zip(report.records, matches, strict=True)])


def row(report: ReportInput, defense: str, attack: str) -> dict[str, Any]:
    (found,) = [r for r in summarise(report) if (r["defense"], r["attack"]) == (defense, attack)]
    return found


@cache
def rendered(kind: str) -> str:
    return render(KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_every_report_is_one_whole_page_that_fetches_nothing(kind: str) -> None:
    html = rendered(kind)
    page = Page(html)
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in page.fetched)
    assert "<script" not in html
    assert "url(http" not in html
    assert not re.search(r"\b(nan|None|Undefined|inf)\b", page.text)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_input_gives_the_same_page(kind: str) -> None:
    assert render(KINDS[kind]) == rendered(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_summary_is_json(kind: str) -> None:
    rows = summarise(KINDS[kind])
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_a_row_rests_on_its_records_alone() -> None:
    mine = [r for r in WHOLE.records if (r["defense"], r["attack"]) == ("none", "fast")]
    values = [value for record in mine for value in record["psnr"]]
    gains = [a - c for r in mine for a, c in zip(r["psnr"], r["controls"]["unrelated_gradient"]["psnr"], strict=True)]
    found = row(WHOLE, "none", "fast")
    low, high = stats.ttest_1samp([fmean(record["psnr"]) for record in mine], 0).confidence_interval(0.95)
    counted = {"n": 32, "images": 32, "groups": 8}
    assert found["psnr"] == pytest.approx(
        {**counted, "median": median(values), "mean": fmean(values), "low": low, "high": high}
    )
    assert found["controls"]["unrelated_gradient"]["gain"]["mean"] == pytest.approx(fmean(gains))
    assert found["controls"]["unrelated_gradient"]["largest_gain"] == pytest.approx(max(gains))
    assert found["identified"]["count"] == sum(rank == 1 for r in mine for rank in r["identification_rank"])
    assert found["identified"]["control"] == {"count": 0, "n": 32}
    assert found["seeds"] == [0, 1]
    assert found["bytes_up"] == 48_000
    assert found["iterations"] == {"total": 3200, "median": 400, "most": 400}


@pytest.mark.parametrize(
    ("epsilon", "words"), [(None, "infinite"), (14.83, "14.9"), (11801.0, "11\u202f900"), (2.5e6, "2.5e+06")]
)
def test_an_epsilon_is_written_to_be_read(epsilon: float | None, words: str) -> None:
    assert units.bound(epsilon) == words


def test_epsilon_counts_every_round_in_which_the_server_saw_a_client() -> None:
    """Ten rounds, in one of which a client's update was refused: it was seen all the same."""
    own = {cell["name"]: Guarantee("record", 2.0, 3) for cell in WHOLE.cells if cell["defense"] == GAUSSIAN}
    report = replace(WHOLE, guarantees=own)
    found = row(report, GAUSSIAN, "fast")["epsilon"]
    assert found == {"protects": "record", "against": "server", "delta": DELTA, "most": epsilon(2.0, 30)}
    assert row(report, "none", "fast")["epsilon"] is None
    said = units.privacy(found)
    assert said == "Epsilon 14.9 a record at delta 1e-05", "14.83, an upper bound, is not rounded down"
    assert said in render(report)
    assert said in markdown(report)
    faint = replace(WHOLE, guarantees={name: Guarantee("client", 1e-9, 1) for name in own})
    assert "Epsilon" in render(faint)


def test_seeds_are_one_setting_and_other_axes_are_not() -> None:
    cells = [
        {"name": f"{model}-{seed}", "axes": {"defense": "none", "model": model, "seed": seed}, "defense": "none"}
        for model in ("lenet", "resnet")
        for seed in (0, 1)
    ]
    records = [{**WHOLE.records[0], "cell": cell["name"]} for cell in cells]
    rows = summarise(replace(WHOLE, cells=cells, records=records, training={}))
    assert [r["setting"] for r in rows] == ["no defense, model lenet", "no defense, model resnet"]
    assert [r["psnr"]["n"] for r in rows] == [8, 8]


def test_failures_are_counted_and_never_scored() -> None:
    report = change(WHOLE, lambda r: synthetic.failed(r, "failed", "no memory"), defense="none", attack="fast", seed=1)
    found = row(report, "none", "fast")
    assert found["outcomes"] == {"out-of-steps": 4, "failed": 4}
    assert found["reasons"] == {"no memory": 4}
    assert found["psnr"]["n"] == 16
    assert found["psnr"]["median"] == row(synthetic.report(seeds=(0,)), "none", "fast")["psnr"]["median"]
    assert "4 \N{MULTIPLICATION SIGN} no memory" in Page(render(report)).text


def test_where_nothing_was_judged_there_is_no_number() -> None:
    found = row(FAILED, "none", "fast")
    assert [found[name] for name in ("psnr", "ssim", "lpips", "label_accuracy", "identified")] == [None] * 5


def test_what_the_study_says_is_escaped_and_shown() -> None:
    study = {**synthetic.STUDY, "adversary": {"view": "aggregate", "cohort": 3, "labels": False}, "name": "<b>bold"}
    html = render(replace(EMPTY, study=study))
    assert "<b>bold" not in html
    text = Page(html).text
    assert "only the sum over several clients is seen" in text
    assert "Cohort 3" in text
    assert "Labels not given" in text


def test_the_page_says_why_lpips_is_missing() -> None:
    report = change(
        WHOLE, lambda r: {**r, "lpips": None, "notes": {"lpips": "no weights, no network"}}, study="three-defenses"
    )
    assert "LPIPS was not computed: no weights, no network" in Page(render(report)).text


def test_figures_as_gifds_code_takes_them_stand_apart_and_under_their_own_name() -> None:
    report = change(WHOLE, lambda r: {**r, "gifd": {"ssim": [0.123] * len(r["psnr"]), "lpips": None}})
    assert row(report, "none", "fast")["gifd"]["ssim"]["mean"] == pytest.approx(0.123)
    assert row(report, "none", "fast")["ssim"] == row(WHOLE, "none", "fast")["ssim"]
    for text in (Page(render(report)).text, markdown(report)):
        assert "as GIFD's code" in text
        assert "Not to be compared with the standard figures" in text
    assert "as GIFD's code" not in markdown(WHOLE)
