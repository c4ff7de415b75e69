"""Label mapping: a generator is told the class that its own classifier sees, where labels mean something else."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot

from attacks import ATTACKS
from attacks.generators import about, classifier, load
from fl_sim import models
from fl_sim.core.contracts import Attack
from fl_sim.core.errors import ConfigError
from fl_sim.core.knowledge import Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Observation
from fl_sim.metrics.image import psnr
from fl_sim.runtime import files
from tests.conftest import TASK, observe

DIGITS = load("digits")
DRAWN, LABEL = torch.tensor([0]), torch.tensor([4])  # the generator's class, and what clients call it


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return models.build("mlp", TASK, 0, widths=[32])


def watched(net: nn.Module, label: torch.Tensor) -> Observation:
    return replace(observe(net, Batch(zero(), label)), knowledge=Knowledge(labels=label))


def zero() -> torch.Tensor:
    image: torch.Tensor = DIGITS(DIGITS.start(1, one_hot(DRAWN, 10).float(), derive(5)))
    return image


def gifd(**options: Any) -> Attack:
    return ATTACKS["gifd"](**{"generator": "digits", "steps": 40, "coarse": 20, "stages": 1, "restarts": 2} | options)


def test_an_image_is_found_among_those_that_it_looks_like(net: nn.Module) -> None:
    """Its gradient is matched under its label, and that is returned."""
    assert torch.equal(classifier("digits")(zero()).argmax(1), DRAWN)
    seen = watched(net, LABEL)
    told, mapped = (gifd(condition=condition)(seen, net, derive(0)) for condition in ("label", "mapped"))
    assert mapped.labels.tolist() == LABEL.tolist()
    assert mapped.loss < told.loss / 10
    assert psnr(mapped.images, zero()) > psnr(told.images, zero()) + 10
    assert mapped.budget.iterations == told.budget.iterations + 2 * 20


def test_where_the_class_is_the_label_nothing_changes(net: nn.Module) -> None:
    """The fine search starts from the latents that the coarse one started from."""
    seen = watched(net, DRAWN)
    told, mapped = (gifd(condition=condition)(seen, net, derive(0)) for condition in ("label", "mapped"))
    assert torch.equal(mapped.images, told.images)


def test_a_task_of_other_classes_is_searched(net: nn.Module) -> None:
    seen = watched(net, LABEL)
    seen = replace(seen, task=replace(TASK, classes=9))
    with pytest.raises(ConfigError, match=r'9 classes.*condition = "mapped"'):
        gifd().check(seen, net)
    gifd(condition="mapped").check(seen, net)


def test_a_generator_without_a_classifier_is_refused(net: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    files.write_tensors(path, DIGITS.state_dict(), asdict(replace(about("digits"), classifier=None)))
    seen = watched(net, LABEL)
    gifd(generator=str(path)).check(seen, net)
    with pytest.raises(ConfigError, match=r"classifier of its classes, got .*bare\.safetensors, which has none"):
        gifd(generator=str(path), condition="mapped").check(seen, net)
