"""The presets of the Bayes-optimal adversary and of what it is compared with."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from attacks import ATTACKS
from attacks.bayes import bayes, cosine
from attacks.posterior import KnowsDefense, PosteriorSearch
from attacks.solvers import Adam
from fl_sim import models
from fl_sim.core.errors import ConfigError
from fl_sim.core.knowledge import DefenseKnowledge, Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch
from fl_sim.metrics.image import psnr
from tests.conftest import TASK, observe


def test_the_released_algorithm_can_be_asked_for() -> None:
    """Its figures for a defense of strength 0.1, from the released code of arXiv 2111.04706."""
    attack = bayes(steps=200, step_size=0.5, decay=0.94, box=False, anneal_from=0.1**2)
    assert isinstance(attack, KnowsDefense)
    assert isinstance(attack.search, PosteriorSearch)
    factors = [attack.search.annealing(step / 200) for step in range(201)]
    assert factors[0] == pytest.approx(0.01)
    assert factors[1] / factors[0] == pytest.approx(1.04713, abs=1e-5)
    assert factors[99] < 1 == factors[100] == factors[200]
    solver = attack.search.solver
    assert isinstance(solver, Adam)
    assert sum(solver.rate(step) for step in range(200)) == pytest.approx(8.33, abs=0.01)


@pytest.mark.parametrize(
    ("options", "words"), [({"support": "observed"}, "set cosine_steps"), ({"cosine_steps": -1}, "expected 0 or more")]
)
def test_a_cosine_that_is_not_run_has_no_settings(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        bayes(**options)


def test_without_a_decay_the_step_falls_three_times() -> None:
    attack = cosine(steps=80, step_size=0.4)
    assert isinstance(attack, PosteriorSearch)
    assert isinstance(attack.solver, Adam)
    rates = [attack.solver.rate(step) for step in (29, 30, 49, 50, 69, 70)]
    assert rates == pytest.approx([0.4, 0.04, 0.04, 0.004, 0.004, 0.0004])


def test_what_dropout_drew_is_searched_with_the_image() -> None:
    """Half of a wide layer is switched off: taken as if nothing were, the gradient is matched by another image."""
    net = models.build("mlp", TASK, 0, widths=[200], dropout=0.5)
    images = torch.rand(1, *TASK.image_shape, generator=derive(0, "image"))
    seen = observe(net, Batch(images, torch.tensor([2])))
    seen = replace(seen, knowledge=Knowledge(defense_level=DefenseKnowledge.PARAMETERS, defenses=()))
    found = {}
    for draws in ("mean", "joint"):
        attack = ATTACKS["bayes"](steps=400, step_size=0.05, tv=1e-4, draws=draws, supposed=0.02)
        found[draws] = psnr(attack(seen, net, derive(0)).images, images).item()
    assert found["joint"] > found["mean"] + 5
