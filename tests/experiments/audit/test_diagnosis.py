"""Every mistake is planted in a record of real training, and shows; a right record shows none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.audit.config import load
from experiments.audit.diagnosis import DIAGNOSES, Finding
from experiments.audit.importing import Import
from fl_sim.core.types import Tensors
from fl_sim.runtime.cells import CellStore
from tests.conftest import TASK
from tests.experiments.audit.record import COLOUR, Record

RESNET = Record(model="resnet18", options={"width": 8}, task=COLOUR)
RIGHT = {
    "mlp": Record(),
    "mlp, four images": Record(images=4),
    "mlp, five steps": Record(epochs=5),
    "mlp, two epochs of batches": Record(images=8, batch_size=4, epochs=2),
    "mlp, trained for long": Record(warm=300),
    "mlp, trained for long, two images": Record(warm=300, images=2),
    "mlp, trained for a while, four images": Record(warm=30, images=4),
    "softmax": Record(model="softmax"),
    "lenet": Record(model="lenet"),
    "cnn, small rate": Record(model="cnn", task=COLOUR, rate=1e-4),
    "cnn, four images": Record(model="cnn", task=COLOUR, images=4),
    "resnet, eval mode": RESNET,
    "resnet, train mode": replace(RESNET, images=4, train=True),
    "convnet, train mode, steps": replace(RESNET, model="convnet", images=4, batch_size=2, epochs=2, train=True),
}


def diagnosed(record: Record, folder: Path, *states: Tensors, **more: Any) -> dict[str, Finding]:
    before, after = states or record.trained()
    audit = record.write(folder, before, after, **more)
    return {finding.diagnosis: finding for finding in Import(load(audit), folder).into(CellStore(folder / "run"))}


def wrong(found: dict[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.verdict == "wrong"}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_record_shows_no_mistake(name: str, tmp_path: Path) -> None:
    found = diagnosed(RIGHT[name], tmp_path)
    assert wrong(found) == set()
    assert sum(finding.verdict == "fits" for finding in found.values()) >= 5


Planted = Callable[[Path], dict[str, Finding]]


def _without_buffers(folder: Path) -> dict[str, Finding]:
    before, after = RESNET.trained()
    kept = dict(RESNET.network().named_parameters())
    return diagnosed(RESNET, folder, {k: before[k] for k in kept}, {k: after[k] for k in kept})


def _swapped(folder: Path) -> dict[str, Finding]:
    before, after = Record().trained()
    return diagnosed(Record(), folder, before, {name: 2 * before[name] - t for name, t in after.items()})


def _later(folder: Path) -> dict[str, Finding]:
    """The weights of another round are taken for those that were sent."""
    record = Record(model="lenet")
    (before, after), other = record.trained(), replace(record, seed=1).network().state_dict()
    moved = {name: other[name] + after[name] - before[name] for name in before}
    return diagnosed(record, folder, other, moved)


def _transposed(folder: Path) -> dict[str, Finding]:
    record = Record(options={"widths": [16, 16]})
    turned = [{k: t.T if k == "net.fc2.weight" else t for k, t in state.items()} for state in record.trained()]
    return diagnosed(record, folder, *turned)


def _frozen(folder: Path) -> dict[str, Finding]:
    before, after = Record().trained()
    return diagnosed(Record(), folder, before, after | {name: before[name] for name in before if "fc1" in name})


def _sigmoids(folder: Path) -> dict[str, Finding]:
    """Each class by itself: the last biases' gradient is the sigmoid minus the label."""
    before, after = Record().trained()
    bias = before["net.head.bias"] - 0.1 * (before["net.head.bias"].sigmoid() - torch.eye(10)[2])
    return diagnosed(Record(), folder, before, after | {"net.head.bias": bias})


PLANTED: dict[str, dict[str, Planted]] = {
    "buffers": {"parameters only": _without_buffers},
    "batchnorm": {
        "trained in train mode": lambda folder: diagnosed(
            replace(RESNET, images=4, train=True, claimed={"batchnorm": "eval"}), folder
        ),
        "trained in eval mode": lambda folder: diagnosed(replace(RESNET, claimed={"batchnorm": "train"}), folder),
    },
    "steps": {
        "one epoch of three claimed": lambda folder: diagnosed(
            replace(RESNET, images=4, epochs=3, train=True, claimed={"local_epochs": 1}), folder
        )
    },
    "loss": {"a sigmoid for each class": _sigmoids},
    "optimiser": {"Adam": lambda folder: diagnosed(Record(optimiser=torch.optim.Adam, rate=1e-3), folder)},
    "sign": {"before minus after": _swapped},
    "learning_rate": {
        "ten times too large": lambda folder: diagnosed(Record(claimed_rate=1.0), folder),
        "a tenth off": lambda folder: diagnosed(Record(model="cnn", task=COLOUR, claimed_rate=0.11), folder),
        "twice, four images": lambda folder: diagnosed(Record(images=4, claimed_rate=0.2), folder),
        "five epochs of which one is claimed": lambda folder: diagnosed(
            Record(rate=0.01, epochs=5, claimed={"local_epochs": 1}), folder
        ),
    },
    "broadcast": {"another round's weights": _later},
    "names": {"a square matrix transposed": _transposed},
    "examples": {"four images for one": lambda folder: diagnosed(Record(images=4, examples=1), folder)},
    "model": {
        "tanh for ReLU": lambda folder: diagnosed(
            Record(
                model="tests.experiments.audit.nets:tanh", claimed_model={"name": "tests.experiments.audit.nets:relu"}
            ),
            folder,
        )
    },
    "normalisation": {
        "normalised, claimed raw": lambda folder: diagnosed(
            Record(claimed_task=replace(TASK, mean=(0.0,), std=(1.0,))), folder
        ),
        "raw, claimed normalised": lambda folder: diagnosed(
            Record(task=replace(TASK, mean=(0.0,), std=(1.0,)), claimed_task=TASK), folder
        ),
    },
    "frozen": {"a layer that stays": _frozen},
}


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in PLANTED.items() for case in cases])
def test_a_planted_mistake_is_named(name: str, case: str, tmp_path: Path) -> None:
    found = PLANTED[name][case](tmp_path)
    assert found[name].verdict == "wrong", found
    assert found[name].figure is not None


def test_every_diagnosis_has_a_mistake_planted() -> None:
    assert sorted(PLANTED) == sorted(DIAGNOSES)


def test_the_factor_of_the_learning_rate_is_what_it_is_off_by(tmp_path: Path) -> None:
    found = diagnosed(Record(claimed_rate=0.4), tmp_path)
    assert found["learning_rate"].figure == pytest.approx(0.25, rel=1e-3)
    assert wrong(found) == {"learning_rate"}


def test_train_mode_shows_without_the_statistics(tmp_path: Path) -> None:
    """Where clients send parameters only: weights before batch norm are orthogonal to their gradients."""
    record = replace(RESNET, images=4, train=True)
    before, after = record.trained()
    sent = {name: t for name, t in after.items() if name in dict(record.network().named_parameters())}
    assert diagnosed(record, tmp_path, before, sent)["batchnorm"].verdict == "fits"
    assert (
        diagnosed(replace(record, claimed={"batchnorm": "eval"}), tmp_path, before, sent)["batchnorm"].verdict
        == "wrong"
    )


def test_nothing_can_be_told_of_defended_updates(tmp_path: Path) -> None:
    found = diagnosed(Record(claimed_rate=1.0), tmp_path, defenses=["signsgd"])
    assert {finding.verdict for finding in found.values()} == {"cannot tell"}
