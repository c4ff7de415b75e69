"""What the page says was attacked, for a reader who has only the page."""

from dataclasses import replace
from typing import Any

from experiments.report import ReportInput
from experiments.report.scope import scope
from experiments.report.threat import attacks_told
from tests.experiments import synthetic

SIZES = {"kind": "sizes", "sizes": [1, 1, 1, 1000]}


def facts(report: ReportInput) -> dict[str, tuple[str, str]]:
    return {fact.title: (fact.value, fact.meaning) for fact in scope(report)}


def studied(report: ReportInput, **sections: dict[str, Any]) -> ReportInput:
    return replace(report, study={**report.study, **sections})


def images(report: ReportInput, ids: dict[int, list[int]]) -> ReportInput:
    return replace(report, records=[{**r, "image_ids": ids[r["round"]]} for r in report.records])


def test_data_net_and_training_are_named() -> None:
    told = facts(
        studied(
            synthetic.report(),
            data={"name": "mnist", "split": "test", "per_client": None, "partition": SIZES},
            federation={"clients": 4, "rounds": 10, "mode": "fedavg", "batch_size": 2, "local_epochs": 3},
        )
    )
    assert told["Data"] == (
        "mnist",
        "clients hold images of its test split; divided: sizes, 3 clients with 1, 1 with 1\u202f000",
    )
    assert told["Net"] == ("lenet", "")
    assert told["Training"] == ("4 clients, 10 rounds", "batches of 2, 3 local epochs")
    assert told["Behind an attacked update"] == ("4 images", "6 local steps")


def test_one_gradient_is_no_step() -> None:
    assert facts(synthetic.report(batch=1))["Behind an attacked update"] == ("1 image", "one gradient")


def test_what_a_grid_varies_stands_side_by_side() -> None:
    grid = {"model": ["lenet", {"name": "cnn"}], "federation.local_epochs": [1, 2]}
    told = facts(
        studied(synthetic.report(), grid=grid, federation={"mode": "fedavg", "batch_size": 4, "local_epochs": 1})
    )
    assert told["Net"][0] == "lenet, cnn"
    assert told["Behind an attacked update"] == ("4 images", "1 to 2 local steps")


def test_images_that_come_again_are_said_to() -> None:
    two = synthetic.report(rounds=(1, 2), batch=2, seeds=(0,))
    assert facts(images(two, {1: [5, 6], 2: [5, 6]}))["Attacked"] == (
        "2 images",
        "the same in each of 2 rounds, 1 seed",
    )
    assert facts(images(two, {1: [5, 6], 2: [7, 8]}))["Attacked"] == ("4 images", "others in each of 2 rounds, 1 seed")
    assert facts(images(two, {1: [5, 6], 2: [6, 7]}))["Attacked"] == (
        "3 images",
        "in 2 rounds, one image in 1 to 2 of them, 1 seed",
    )
    assert facts(synthetic.report(rounds=(3,), batch=1, seeds=(0,), attacks=("fast",), defenses=("none",)))[
        "Attacked"
    ] == (
        "1 image",
        "in one round, 1 seed",
    )


def test_nothing_judged_says_nothing_of_images() -> None:
    told = facts(replace(synthetic.report(), records=[]))
    assert "Attacked" not in told
    assert "Behind an attacked update" not in told


def test_attacks_are_explained_by_the_name_they_have_here() -> None:
    part = {
        "name": "inverting_gradients",
        "label": "fast",
        "only": [],
        "tuned": {},
        "joint": False,
        "steps": 300,
        "signed": False,
    }
    (first, second) = attacks_told(studied(synthetic.report(), attacks=[part]))  # type: ignore[arg-type]
    assert first.title == "fast"
    assert first.value.startswith("inverting_gradients: ")
    assert first.meaning == "steps = 300, signed = False"
    assert second.title == "adaptive"
