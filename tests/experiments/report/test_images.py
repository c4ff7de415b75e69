"""One image in several rounds is one image: for every interval, share and test."""

from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
from scipy import stats

from experiments.report import ReportInput
from experiments.report.images import against, identified, of_metric, paired, risk_of, unrecovered
from experiments.report.table import summarise
from experiments.report.units import judged, sample
from experiments.report.verdict import verdict
from fl_sim.metrics.risk import risk
from tests.experiments import synthetic

IDS = [11, 12, 13, 14]


def named(whole: ReportInput) -> ReportInput:
    """Every batch is of the same four images."""
    return replace(whole, records=[{**record, "image_ids": IDS} for record in whole.records])


MADE = named(synthetic.report(rounds=(1, 2, 5, 10), seeds=(0,)))
MINE = [r for r in MADE.records if (r["defense"], r["attack"]) == ("topk(0.1)", "fast")]


def each(values: list[list[float]]) -> list[float]:
    """The mean of each image over rounds."""
    return [fmean(column) for column in zip(*values, strict=True)]


def test_means_and_their_bounds_are_over_images() -> None:
    found = of_metric(MINE, "psnr")
    low, high = stats.ttest_1samp(each([r["psnr"] for r in MINE]), 0).confidence_interval(0.95)
    assert found is not None
    assert (found["n"], found["images"]) == (16, 4)
    assert (found["low"], found["high"]) == pytest.approx((low, high))


def test_gains_are_over_images() -> None:
    gains = [[a - b for a, b in zip(r["psnr"], r["controls"]["mean_image"]["psnr"], strict=True)] for r in MINE]
    low, high = stats.ttest_1samp(each(gains), 0).confidence_interval(0.95)
    found = against(MINE, "mean_image")
    assert found is not None
    assert (found["gain"]["low"], found["gain"]["high"]) == pytest.approx((low, high))
    assert found["largest_gain"] == max(gain for one in gains for gain in one)


def test_differences_of_two_attacks_are_over_images() -> None:
    others = [r for r in MADE.records if (r["defense"], r["attack"]) == ("topk(0.1)", "adaptive")]
    gains = [[a - b for a, b in zip(r["psnr"], o["psnr"], strict=True)] for r, o in zip(MINE, others, strict=True)]
    low, high = stats.ttest_1samp(each(gains), 0).confidence_interval(0.95)
    found = paired(MINE, others)
    assert found is not None
    assert (found["images"], found["low"], found["high"]) == pytest.approx((4, low, high))


def test_risk_is_as_sure_as_its_images_are_many() -> None:
    found = risk_of(MINE)
    distances = [d for r in MINE for d in r["distance"]]
    share = fmean(d > 8.0 for d in distances)
    assert found is not None
    assert (found["value"], found["n"]) == pytest.approx((share, 4))
    alone = risk(distances, 8.0)
    assert found["high"] - found["low"] > alone.high - alone.low


def test_an_image_found_once_is_found_and_so_is_the_controls() -> None:
    ranks = [[1, 3, 3, 3], [5, 1, 3, 3], [1, 2, 2, 2], [9, 9, 9, 9]]
    blind = {"psnr": [9.0] * 4, "identification_rank": [4, 1, 4, 4]}
    told = [
        {**r, "identification_rank": rank, "controls": {**r["controls"], "unrelated_gradient": blind}}
        for r, rank in zip(MINE, ranks, strict=True)
    ]
    found = identified(told)
    assert found is not None
    assert (found["count"], found["n"], found["control"]) == (2, 4, {"count": 1, "n": 4})


def test_an_image_recovered_in_one_round_is_recovered() -> None:
    told = [{**r, "distance": [9.0, 9.0, 9.0, 7.0 if r["round"] == 5 else 9.0]} for r in MINE]
    found = unrecovered(told)
    assert found is not None
    assert (found["count"], found["n"]) == (3, 4)


def test_rounds_that_repeat_each_other_prove_no_more_than_one_of_them() -> None:
    """Ten times the same figures of the same images: the bounds stay, and so does the verdict."""
    once = replace(MADE, records=[r for r in MADE.records if r["round"] == 1])
    again = [{**r, "round": number} for r in once.records for number in range(1, 11)]
    often = replace(once, records=again)
    for before, after in zip(summarise(once), summarise(often), strict=True):
        assert [after["psnr"][name] for name in ("mean", "low", "high")] == pytest.approx(
            [before["psnr"][name] for name in ("mean", "low", "high")]
        )
        assert after["controls"]["mean_image"]["gain"] == pytest.approx(before["controls"]["mean_image"]["gain"])
        assert verdict([after], None) == verdict([before], None)


def test_images_of_unknown_identity_are_each_their_own() -> None:
    older = [{key: value for key, value in r.items() if key != "image_ids"} for r in MINE]
    found = of_metric(older, "psnr")
    assert found is not None
    assert (found["n"], found["images"]) == (16, 16)


@pytest.mark.parametrize(
    ("spread", "words", "narrow"),
    [
        ({"n": 8, "images": 8}, "8 images", "8"),
        ({"n": 48, "images": 8}, "48 reconstructions of 8 images", "48 of 8"),
        ({"n": 6, "images": 1}, "6 reconstructions of 1 image", "6 of 1"),
        (None, "0 images", "0"),
    ],
)
def test_samples_in_words(spread: dict[str, Any] | None, words: str, narrow: str) -> None:
    assert (judged(spread), sample(spread)) == (words, narrow)
