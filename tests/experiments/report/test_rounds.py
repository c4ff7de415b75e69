"""Rows by round, client and class against what the records say, recomputed the long way."""

import json
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean, median
from typing import Any

import numpy as np
import pytest
from scipy import stats

from defenses.privacy import Guarantee
from experiments.report import ReportInput, summary
from experiments.report.cost import training_by_round
from experiments.report.rounds import by_class, by_client, by_round
from experiments.report.table import summarise
from experiments.report.whom import risks
from fl_sim.metrics.accounting import epsilon
from tests.experiments import synthetic

GAUSSIAN = "gaussian(std=0.1)"


def two_clients(record: dict[str, Any]) -> dict[str, Any]:
    """The same observation, of another client and two decibels better."""
    return {**record, "client": 3, "members": [3], "psnr": [value + 2 for value in record["psnr"]]}


MADE = synthetic.report()
WHOLE = replace(MADE, records=[r for one in MADE.records for r in (one, two_clients(one))])
MINE = [r for r in WHOLE.records if (r["defense"], r["attack"]) == ("topk(0.1)", "fast")]


def row(rows: list[dict[str, Any]], **where: object) -> dict[str, Any]:
    (found,) = [r for r in rows if all(r[key] == value for key, value in where.items())]
    return found


def test_a_round_has_its_interval_over_clients_and_seeds() -> None:
    """Each client's images are one value: four images of four sources are no sixteen."""
    found = row(by_round(WHOLE), setting="topk(0.1)", attack="fast", round=5)
    mine = [r for r in MINE if r["round"] == 5]
    images = [value for r in mine for value in r["psnr"]]
    low, high = stats.ttest_1samp([fmean(r["psnr"]) for r in mine], 0).confidence_interval(0.95)
    told = {"n": 16, "sources": 4, "median": median(images), "mean": fmean(images), "low": low, "high": high}
    assert found["psnr"] == pytest.approx({**told, "largest": max(images)})
    assert found["controls"]["unrelated_gradient"]["mean"] == pytest.approx(
        fmean(c for r in mine for c in r["controls"]["unrelated_gradient"]["psnr"])
    )
    assert found["identified"] == {"count": sum(rank == 1 for r in mine for rank in r["identification_rank"]), "n": 16}


def test_clients_of_two_seeds_are_two_and_the_most_leaking_is_first() -> None:
    mine = [r for r in by_client(WHOLE) if (r["setting"], r["attack"]) == ("topk(0.1)", "fast")]
    whose = {(r["seed"], r["client"]) for r in MINE}
    assert {(r["seed"], *r["clients"]) for r in mine} == whose
    assert [r["psnr"]["median"] for r in mine] == sorted((r["psnr"]["median"] for r in mine), reverse=True)
    found = row(mine, seed=1, clients=[3])
    images = [value for r in MINE if (r["seed"], r["client"]) == (1, 3) for value in r["psnr"]]
    assert (found["psnr"]["n"], found["psnr"]["median"]) == (len(images), pytest.approx(median(images)))
    assert (found["psnr"]["sources"], found["psnr"]["low"]) == (1, None)


def test_classes_divide_the_images() -> None:
    mine = [r for r in by_class(WHOLE) if (r["setting"], r["attack"]) == ("topk(0.1)", "fast")]
    assert sum(r["psnr"]["n"] for r in mine) == sum(len(r["psnr"]) for r in MINE)
    images = [value for r in MINE for value, label in zip(r["psnr"], r["labels"], strict=True) if label == 6]
    assert row(mine, **{"class": 6})["psnr"]["mean"] == pytest.approx(fmean(images))


def test_records_without_classes_have_no_rows_by_class() -> None:
    older = [{key: value for key, value in r.items() if key != "labels"} for r in WHOLE.records]
    assert by_class(replace(WHOLE, records=older)) == []


def test_the_price_adds_up_round_by_round() -> None:
    own = {c["name"]: Guarantee("record", 2.0, 3) for c in WHOLE.cells if c["defense"] == GAUSSIAN}
    found = row(training_by_round(replace(WHOLE, guarantees=own)), setting=GAUSSIAN, round=4)
    cells = [rows for name, rows in WHOLE.training.items() if GAUSSIAN in name]
    assert found["accuracy"]["mean"] == pytest.approx(fmean(rows[4]["accuracy"] for rows in cells))
    assert found["bytes_up"] == 4 * cells[0][1]["bytes_up"]
    assert found["epsilon"]["most"] == epsilon(2.0, 12)
    assert row(training_by_round(WHOLE), setting=GAUSSIAN, round=4)["epsilon"] is None


def test_a_sampled_mechanism_is_accounted_for_at_the_ends_and_some_rounds_between() -> None:
    long = {name: synthetic.training(np.random.default_rng(1), GAUSSIAN, 40) for name in WHOLE.training}
    own = {c["name"]: Guarantee("record", 4.0, 1, rate=0.5) for c in WHOLE.cells if c["defense"] == GAUSSIAN}
    rows = training_by_round(replace(WHOLE, training=long, guarantees=own))
    done = [r["round"] for r in rows if r["setting"] == GAUSSIAN and r["epsilon"]]
    assert (done[0], done[-1], len(done)) == (0, 40, 13)


def test_the_summary_holds_it_all_and_is_json() -> None:
    found = summary(WHOLE)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["by_round"] == by_round(WHOLE)
    assert {one["setting"]: one["word"] for one in found["verdicts"]}["topk(0.1)"] == "leaks"
    assert found["capabilities"]["letter"] == "C"
    unrecovered = row(found["rows"], setting="topk(0.1)", attack="fast")["unrecovered"]
    far = [d > 8.0 for r in MINE for d in r["distance"]]
    assert (unrecovered["count"], unrecovered["n"]) == (sum(far), len(far))
    assert (unrecovered["iterations"], unrecovered["seconds"]) == (400, 3.25)


def test_classes_that_are_clients_are_not_listed_twice() -> None:
    def labelled(of: Callable[[dict[str, Any]], int]) -> ReportInput:
        return replace(WHOLE, records=[{**r, "labels": [of(r)] * len(r["psnr"])} for r in WHOLE.records])

    one_each = labelled(lambda r: 10 * r["seed"] + r["client"])
    assert {len(risk.groups) for risk in risks(one_each, summarise(one_each))} == {1}
    shared = labelled(lambda r: r["client"])
    assert {len(risk.groups) for risk in risks(shared, summarise(shared))} == {2}
