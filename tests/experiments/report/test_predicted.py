"""Predicted risk beside measured leakage: rows, page and summary."""

from dataclasses import replace
from typing import Any

import pytest
from scipy import stats

from experiments.report import ReportInput, render, summary
from experiments.report.predicted import ALL, predicted_risk, silent
from experiments.report.units import correlation
from tests.experiments import synthetic

GAUSSIAN = "gaussian(std=0.1)"


def told(record: dict[str, Any]) -> dict[str, Any]:
    """Predictions that follow the measured PSNR behind one defense, and are silent without one."""
    if record["psnr"] is None:
        return record
    if record["defense"] != GAUSSIAN:
        return {**record, "predicted": {"k15": None}, "notes": {"k15": "no noise is added"}}
    return {**record, "predicted": {"k15": [round(p) - 3.0 for p in record["psnr"]]}}


@pytest.fixture(scope="module")
def whole() -> ReportInput:
    made = synthetic.with_failures(synthetic.report(defenses=("none", GAUSSIAN), rounds=(1, 2, 3, 5)))
    return replace(made, records=[told(record) for record in made.records])


def test_a_row_is_the_rank_correlation_of_a_settings_images(whole: ReportInput) -> None:
    rows = predicted_risk(whole)
    assert [(row["setting"], row["attack"]) for row in rows] == [(GAUSSIAN, "fast"), (GAUSSIAN, "adaptive")]
    mine = [r for r in whole.records if r["defense"] == GAUSSIAN and r["attack"] == "fast" and r["psnr"]]
    measured = [p for r in mine for p in r["psnr"]]
    expected = stats.spearmanr([round(p) for p in measured], measured).statistic
    assert rows[0]["correlation"]["value"] == pytest.approx(expected)
    assert rows[0]["correlation"]["low"] < expected < 1
    assert (rows[0]["n"], rows[0]["sources"]) == (len(measured), len({(r["seed"], r["client"]) for r in mine}))


def test_several_settings_are_also_taken_together(whole: ReportInput) -> None:
    other = [{**r, "predicted": {"k15": r["psnr"]}} if r["defense"] == "none" else r for r in whole.records]
    rows = predicted_risk(replace(whole, records=other))
    assert [row["setting"] for row in rows[-2:]] == [ALL, ALL]
    assert rows[-1]["n"] == sum(row["n"] for row in rows[:-2] if row["attack"] == "adaptive")


def test_page_and_summary_hold_them(whole: ReportInput) -> None:
    page, rows = render(whole), predicted_risk(whole)
    assert page.count('<section id="predicted">') == 1
    assert correlation(rows[0]["correlation"]) in page
    assert "no defense: k15 says nothing, no noise is added" in page
    assert silent(whole) == [("no defense", "k15", "no noise is added")]
    assert summary(whole)["predicted_risk"] == rows


def test_a_run_without_predictors_has_no_such_section() -> None:
    plain = synthetic.report(defenses=(GAUSSIAN,), rounds=(1,))
    assert predicted_risk(plain) == []
    assert silent(plain) == []
    assert "Predicted risk" not in render(plain)


def test_a_correlation_without_interval_is_said_alone() -> None:
    assert correlation({"value": 0.5, "low": None, "high": None}) == "0.50"
    assert correlation({"value": None, "low": None, "high": None}) == "\N{EN DASH}"
