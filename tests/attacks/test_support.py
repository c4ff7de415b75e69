"""Defenses that send part of a gradient, before an attack that compares only what was sent."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from attacks import ATTACKS
from attacks.likelihoods import Cosine
from defenses import DEFENSES
from fl_sim import models
from fl_sim.core.contracts import AnyDefense
from fl_sim.core.knowledge import Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Observation
from fl_sim.data import Source, load
from fl_sim.metrics.image import psnr
from tests.attacks.problems import guess_of, problem_of
from tests.conformance.catalogue import defended
from tests.conftest import TASK

PARTIAL: dict[str, Any] = {
    "topk": {"keep": 0.1},
    "random_prune": {"rate": 0.9},
    "soteria": {"rate": 0.8, "layer": "net.head"},
}
SEARCHES: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("gifd", "match", "cosine", {"generator": "digits", "stages": 2, "steps": 40, "restarts": 1}),
    ("inverting_gradients", "support", "all", {"steps": 100, "tv": 1e-4, "signed": False, "step_size": 0.8}),
)
partial = pytest.mark.parametrize("name", PARTIAL)


@pytest.fixture
def net() -> nn.Module:
    return models.build("cnn", TASK, 0)


def images(count: int) -> Batch:
    return Batch(torch.rand(count, *TASK.image_shape, generator=derive(0, "images")), torch.arange(count))


def sent(name: str, net: nn.Module, batch: Batch) -> Observation:
    defense: AnyDefense = DEFENSES[name](**PARTIAL[name])
    return replace(defended(defense, net, batch)[0], knowledge=Knowledge(labels=batch.labels))


@pytest.mark.parametrize("count", [1, 3])
@partial
def test_the_truth_explains_all_that_was_sent(name: str, count: int, net: nn.Module) -> None:
    batch = images(count)
    problem = replace(problem_of(sent(name, net, batch), net), labels=batch.labels)
    gradient = problem.passes(guess_of(batch.images[None], problem))
    naive, aware = (Cosine(support=support).bind(problem).cost(gradient).item() for support in ("all", "observed"))
    assert aware == pytest.approx(0, abs=1e-5)
    assert naive > 0.01


@partial
def test_with_it_a_digit_comes_back(name: str, net: nn.Module) -> None:
    digits = load(Source(name="digits")).test
    batch = Batch(digits.images[:1] / 255, digits.labels[:1])
    seen = sent(name, net, batch)
    for attack, option, naive, options in SEARCHES:
        without, aware = (
            psnr(ATTACKS[attack](**{option: value}, **options)(seen, net, derive(0)).images, batch.images).item()
            for value in (naive, "observed")
        )
        assert aware > without + 8
