"""The strongest attack of each round, and what a defense hides of it, against the records."""

from dataclasses import replace
from statistics import fmean

import pytest
from scipy import stats

from experiments.report import ReportInput, markdown, render
from experiments.report.table import summarise
from experiments.report.verdict import MARGIN, verdict
from experiments.report.when import strongest_by_round, told
from tests.experiments import synthetic

MADE = synthetic.report()
TOPK = "topk(0.1)"


def weakened(whole: ReportInput, attack: str, after: int, by: float) -> ReportInput:
    """``attack`` loses ``by`` dB in all rounds after ``after``."""
    records = [
        {**r, "psnr": [p - by for p in r["psnr"]]} if r["attack"] == attack and r["round"] > after else r
        for r in whole.records
    ]
    return replace(whole, records=records)


def test_another_attack_may_lead_in_another_round() -> None:
    rows = [r for r in strongest_by_round(weakened(MADE, "adaptive", 2, 30)) if r["setting"] == TOPK]
    assert [(r["round"], r["attack"]) for r in rows] == [(1, "adaptive"), (2, "adaptive"), (5, "fast"), (10, "fast")]


def test_what_is_hidden_is_the_difference_of_the_strongest_image_by_image() -> None:
    (found,) = [r for r in strongest_by_round(MADE) if (r["setting"], r["round"]) == (TOPK, 5)]
    best = max(
        ("fast", "adaptive"),
        key=lambda a: fmean(
            p for r in MADE.records if (r["defense"], r["attack"], r["round"]) == ("none", a, 5) for p in r["psnr"]
        ),
    )
    here, there = (
        {r["seed"]: r["psnr"] for r in MADE.records if (r["defense"], r["attack"], r["round"]) == (defense, attack, 5)}
        for defense, attack in ((TOPK, "adaptive"), ("none", best))
    )
    each = [fmean(b - a for a, b in zip(here[seed], there[seed], strict=True)) for seed in here]
    low, high = stats.ttest_1samp(each, 0).confidence_interval(0.95)
    assert found["attack"] == "adaptive"
    assert found["hidden"].pop("from") == best
    assert found["hidden"] == pytest.approx({"n": 8, "sources": 2, "mean": fmean(each), "low": low, "high": high})
    assert all(r["hidden"] is None for r in strongest_by_round(MADE) if r["setting"] == "no defense")


def test_nothing_is_hidden_where_nothing_undefended_was_run() -> None:
    assert all(r["hidden"] is None for r in strongest_by_round(synthetic.report(defenses=(TOPK,))))


def test_rounds_in_which_controls_hold_are_named() -> None:
    rows = [r for r in strongest_by_round(MADE) if r["setting"] == "no defense"]
    assert all(r["beats"] for r in rows)
    assert "control" not in " ".join(told(rows))
    first = [{**r, "beats": r["round"] < 5} for r in rows]
    assert "The strongest of each round clearly beats every control in round 1 to 2 only." in list(told(first))
    apart = [{**r, "beats": r["round"] != 2} for r in rows]
    assert "The strongest of each round clearly beats every control in round 1 and 5 to 10 only." in list(told(apart))
    fallen = weakened(weakened(MADE, "fast", 0, 40), "adaptive", 0, 40)
    never = [r for r in strongest_by_round(fallen) if r["setting"] == "no defense"]
    assert "The strongest of each round clearly beats every control in no round." in list(told(never))


def test_one_round_has_no_when() -> None:
    assert list(told(strongest_by_round(synthetic.report(rounds=(3,)))[:1])) == []


def test_a_round_that_leaks_is_not_called_protected() -> None:
    defended, open_ = ([r for r in summarise(MADE) if r["defense"] == name] for name in ("gaussian(std=0.1)", "none"))
    assert verdict(defended, open_).word == "protected"
    gain = {"mean": 9.0, "low": MARGIN + 0.1, "high": 12.0}
    leaking = {"round": 2, "attack": "fast", "controls": {"unrelated_gradient": {"gain": gain}}}
    found = verdict(defended, open_, [leaking])
    assert (found.word, found.reason) == ("not shown", "In round 2 every control is clearly beaten by fast")


def test_page_and_table_say_when() -> None:
    assert "The strongest attack of each round" in render(MADE)
    assert "| hidden by the defense [95 %] |" in markdown(MADE)
    assert "The strongest attack of each round" not in render(synthetic.report(rounds=(3,)))
