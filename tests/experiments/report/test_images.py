"""One image in several rounds is one image: for every interval, share and test."""

from dataclasses import replace
from itertools import product
from statistics import fmean
from typing import Any

import pytest
from scipy import stats

from experiments.report import ReportInput
from experiments.report.images import against, groups_of, identified, of_metric, paired, risk_of, unrecovered
from experiments.report.table import summarise
from experiments.report.units import interval, judged, sample
from experiments.report.verdict import verdict
from fl_sim.metrics.risk import risk
from tests.experiments import synthetic

IDS = [11, 12, 13, 14]


def alone(record: dict[str, Any], place: int) -> dict[str, Any]:
    """One image of a batch, as the update of a client of its own."""

    def only(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: only(below) for name, below in value.items()}
        return [value[place]] if isinstance(value, list) and len(value) == len(IDS) else value

    told: dict[str, Any] = only(record)
    return told | {"client": place, "members": [place], "image_ids": [IDS[place]]}


def named(whole: ReportInput) -> ReportInput:
    """Four clients of one image each, the same in every round."""
    return replace(whole, records=[alone(record, place) for record in whole.records for place in range(4)])


WHOLE = synthetic.report(rounds=(1, 2, 5, 10), seeds=(0,))
MADE = named(WHOLE)
MINE = [r for r in MADE.records if (r["defense"], r["attack"]) == ("topk(0.1)", "fast")]


def rounds(values: list[float]) -> list[list[float]]:
    """By round, of records that go through the images first."""
    return [values[place : place + 4] for place in range(0, len(values), 4)]


def each(values: list[list[float]]) -> list[float]:
    """The mean of each image over rounds."""
    return [fmean(column) for column in zip(*values, strict=True)]


def test_means_and_their_bounds_are_over_images() -> None:
    found = of_metric(MINE, "psnr")
    low, high = stats.ttest_1samp(each(rounds([r["psnr"][0] for r in MINE])), 0).confidence_interval(0.95)
    assert found is not None
    assert (found["n"], found["images"], found["groups"]) == (16, 4, 4)
    assert (found["low"], found["high"]) == pytest.approx((low, high))


def test_gains_are_over_images() -> None:
    gains = [r["psnr"][0] - r["controls"]["mean_image"]["psnr"][0] for r in MINE]
    low, high = stats.ttest_1samp(each(rounds(gains)), 0).confidence_interval(0.95)
    found = against(MINE, "mean_image")
    assert found is not None
    assert (found["gain"]["low"], found["gain"]["high"]) == pytest.approx((low, high))
    assert found["largest_gain"] == max(gains)


def test_differences_of_two_attacks_are_over_images() -> None:
    others = [r for r in MADE.records if (r["defense"], r["attack"]) == ("topk(0.1)", "adaptive")]
    gains = [r["psnr"][0] - o["psnr"][0] for r, o in zip(MINE, others, strict=True)]
    low, high = stats.ttest_1samp(each(rounds(gains)), 0).confidence_interval(0.95)
    found = paired(MINE, others)
    assert found is not None
    assert (found["images"], found["low"], found["high"]) == pytest.approx((4, low, high))


def test_images_of_an_update_count_as_one() -> None:
    batches = [r for r in WHOLE.records if (r["defense"], r["attack"]) == ("topk(0.1)", "fast")]
    fresh = [{**r, "image_ids": [100 * r["round"] + i for i in range(4)]} for r in batches]
    low, high = stats.ttest_1samp([fmean(r["psnr"]) for r in batches], 0).confidence_interval(0.95)
    for records in (batches, fresh):
        found = of_metric(records, "psnr")
        assert found is not None
        assert (found["n"], found["images"], found["groups"]) == (16, 16, 4)
        assert (found["low"], found["high"]) == pytest.approx((low, high))


def test_updates_that_share_an_image_are_one_group_through_others_too() -> None:
    def seen(seed: int, *images: int) -> dict[str, Any]:
        return {"cell": "c", "seed": seed, "round": 1, "client": 0, "psnr": [1.0] * len(images), "image_ids": images}

    first, chained, last, other, again = groups_of(
        [seen(0, 1, 2), seen(0, 2, 3), seen(0, 3), seen(0, 4, 5), seen(1, 1, 2)]
    )
    assert first == chained == last
    assert len({first, other, again}) == 3


def test_risk_is_as_sure_as_its_images_are_many() -> None:
    found = risk_of(MINE)
    distances = [d for r in MINE for d in r["distance"]]
    share = fmean(d > 8.0 for d in distances)
    assert found is not None
    assert (found["value"], found["n"]) == pytest.approx((share, 4))
    alone = risk(distances, 8.0)
    assert found["high"] - found["low"] > alone.high - alone.low


def test_an_image_found_once_is_found_and_so_is_the_controls() -> None:
    ranks = [1, 3, 3, 3, 5, 1, 3, 3, 1, 2, 2, 2, 9, 9, 9, 9]
    blind = [4, 4, 1, 4] * 4
    told = [
        {
            **r,
            "identification_rank": [rank],
            "controls": {**r["controls"], "unrelated_gradient": {"psnr": [9.0], "identification_rank": [its]}},
        }
        for r, rank, its in zip(MINE, ranks, blind, strict=True)
    ]
    found = identified(told)
    assert found is not None
    assert (found["count"], found["n"], found["control"]) == (2, 4, {"count": 1, "n": 4})
    differences = [0.5, 0.25, -1.0, 0.0]  # in the share of rounds
    flips = [fmean(s * d for s, d in zip(signs, differences, strict=True)) for signs in product((1, -1), repeat=4)]
    assert found["p"] == pytest.approx(fmean(flip >= fmean(differences) - 1e-12 for flip in flips))


def test_one_group_allows_no_test() -> None:
    found = identified([r for r in MINE if r["client"] == 0])
    assert found is not None
    assert found["p"] is None


def test_an_image_recovered_in_one_round_is_recovered() -> None:
    told = [{**r, "distance": [7.0 if (r["round"], r["client"]) == (5, 3) else 9.0]} for r in MINE]
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
        ({"n": 8, "images": 8, "groups": 8}, "8 images", "8"),
        ({"n": 48, "images": 8, "groups": 8}, "48 reconstructions of 8 images", "48 of 8"),
        ({"n": 6, "images": 1, "groups": 1}, "6 reconstructions of 1 image", "6 of 1"),
        ({"n": 256, "images": 256, "groups": 8}, "256 images in 8 groups", "256 in 8"),
        ({"n": 48, "images": 16, "groups": 4}, "48 reconstructions of 16 images in 4 groups", "48 of 16 in 4"),
        (None, "0 images", "0"),
    ],
)
def test_samples_in_words(spread: dict[str, Any] | None, words: str, narrow: str) -> None:
    assert (judged(spread), sample(spread)) == (words, narrow)


def test_one_group_has_no_interval_and_says_why() -> None:
    mine = [r for r in MINE if r["client"] == 0]
    assert interval(of_metric(mine, "psnr")).endswith("[one group]")
    assert interval(of_metric(mine[:1], "psnr")).endswith("[n = 1]")
