"""What every attack owes, whatever it does. Runs on each name in the registry."""

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot

from attacks import ALIASES, ATTACKS
from attacks.generators import load
from defenses import DEFENSES
from fl_sim import models
from fl_sim.core.contracts import Attack, ModelDefense, kind_of
from fl_sim.core.errors import UnmetKnowledgeError
from fl_sim.core.knowledge import DefenseKnowledge, Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.trees import add_normal
from fl_sim.core.types import Batch, Observation, Outcome
from fl_sim.metrics.image import psnr
from tests.conformance.catalogue import defended, made, of_kind
from tests.conftest import TASK

GENERATOR = {"generator": "digits"}  # the bundled one, of images of the shared world's size
SMALL: Mapping[str, dict[str, Any]] = {  # arguments that make each attack fast on the shared world
    "bayes": {"steps": 300, "tv": 1e-3, "restarts": 3},  # a small net has poor local minima
    "cosine": {"steps": 200, "tv": 1e-5, "restarts": 3},
    "dlg": {"steps": 300, "restarts": 3},
    "feature_inversion": {"steps": 100, "tv": 1e-6, "restarts": 3},
    "ggl": {"steps": 60, "population": 30, **GENERATOR},
    "gias": {"latent_steps": 60, "steps": 40, "restarts": 2, **GENERATOR},
    "gifd": {"steps": 60, "stages": 2, "restarts": 2, **GENERATOR},
    "gifd_e": {"steps": 60, "stages": 2, "restarts": 2, **GENERATOR},
    "gifd_f": {"steps": 60, "stages": 2, "restarts": 2, **GENERATOR},
    "gifd_z": {"steps": 100, "restarts": 2, **GENERATOR},
    "gion": {"steps": 100},
    "grad_inversion": {"steps": 300, "tv": 1e-6, "batchnorm": 0, "restarts": 3},
    "idlg": {"steps": 300, "restarts": 3},
    "inverting_gradients": {"steps": 300, "tv": 1e-4, "restarts": 3},
    "l1": {"steps": 200, "tv": 1e-3, "restarts": 3},
    "l2": {"steps": 200, "tv": 1e-4, "restarts": 3},
    "r_gap": {},
    "rank": {},
    "ratio": {},
}
GENERATIVE = {name for name, options in SMALL.items() if "generator" in options} | {"gion"}
NETS: Mapping[str, tuple[str, dict[str, Any]]] = {  # for attacks that mlp does not suit, or is too easy for
    "feature_inversion": ("cnn", {}),
    "r_gap": ("lenet", {}),
}
MARGIN: Mapping[str, float] = {  # dB above noise, undefended
    "bayes": 20.0,
    "cosine": 15.0,
    "dlg": 20.0,
    "feature_inversion": 50.0,
    "ggl": 12.0,
    "gias": 15.0,
    "gifd": 25.0,
    "gifd_e": 25.0,
    "gifd_f": 15.0,
    "gifd_z": 15.0,
    "gion": 8.0,
    "grad_inversion": 10.0,
    "idlg": 20.0,
    "inverting_gradients": 15.0,
    "l1": 20.0,
    "l2": 20.0,
    "r_gap": 60.0,
    "rank": 80.0,
    "ratio": 80.0,
}


@pytest.fixture(params=sorted(ATTACKS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def batch(name: str, batch: Batch) -> Batch:
    """The shared image; for an attack with a generator, one that this generator can make."""
    if "generator" not in SMALL[name]:
        return batch
    generator = load(SMALL[name]["generator"])
    label = torch.tensor([2])
    return Batch(generator(generator.start(1, one_hot(label, generator.classes).float(), derive(5))), label)


@pytest.fixture
def model(name: str) -> nn.Module:
    net, options = NETS.get(name, ("mlp", {"widths": [32]}))
    return models.build(net, TASK, 0, **options)


@pytest.fixture
def attack(name: str) -> Attack:
    return ATTACKS[name](**SMALL[name])


@pytest.fixture
def brief(name: str) -> Attack:
    """The same, stopped long before it has found anything."""
    fewer = {"steps": 40, "restarts": 2}
    if name in GENERATIVE:
        fewer = {"steps": 4, "latent_steps": 4, "stages": 1, "population": 8, "restarts": 2}
    return ATTACKS[name](**{option: fewer.get(option, value) for option, value in SMALL[name].items()})


@pytest.fixture
def told(seen: Observation) -> Observation:
    """The shared observation with everything granted: no labels, but that there is no defense."""
    return replace(seen, knowledge=Knowledge(defense_level=DefenseKnowledge.PARAMETERS, defenses=()))


def test_finds_the_image_when_nothing_protects_it(
    name: str, attack: Attack, told: Observation, model: nn.Module, batch: Batch
) -> None:
    noise = psnr(torch.rand(batch.images.shape, generator=derive(0, "noise")), batch.images)
    found = attack(told, model, derive(0))
    assert psnr(found.images, batch.images) > noise + MARGIN[name]
    assert torch.equal(found.labels, batch.labels)
    assert found.outcome in {Outcome.CONVERGED, Outcome.OUT_OF_STEPS}


def test_same_seed_same_guess(brief: Attack, told: Observation, model: nn.Module) -> None:
    first, second = brief(told, model, derive(7)), brief(told, model, derive(7))
    assert torch.equal(first.images, second.images)
    assert first.loss == second.loss


def test_leaves_what_it_was_given_alone(brief: Attack, told: Observation, model: nn.Module) -> None:
    before, mode = copy.deepcopy((told, model.state_dict())), model.training
    brief(told, model, derive(0))
    assert model.training is mode
    assert all(torch.equal(t, before[0].broadcast[k]) for k, t in told.broadcast.items())
    assert all(torch.equal(t, before[0].update.delta[k]) for k, t in told.update.delta.items())
    assert all(torch.equal(t, before[1][k]) for k, t in model.state_dict().items())


@pytest.mark.parametrize("std", [1.0, 1e4])
def test_images_are_images_even_when_the_update_is_nonsense(
    brief: Attack, told: Observation, model: nn.Module, std: float
) -> None:
    nonsense = replace(told.update, delta=add_normal(told.update.delta, std, derive(1)))
    found = brief(replace(told, update=nonsense), model, derive(0))
    assert found.images.shape == (1, 1, 8, 8)
    assert bool(((found.images >= 0) & (found.images <= 1)).all())


def test_an_update_of_zeros_ends_with_an_outcome(brief: Attack, told: Observation, model: nn.Module) -> None:
    zeros = replace(told.update, delta={k: torch.zeros_like(t) for k, t in told.update.delta.items()})
    found = brief(replace(told, update=zeros), model, derive(0))
    assert found.outcome in set(Outcome)
    assert bool(found.images.isfinite().all())


def test_refuses_what_it_may_not_know(attack: Attack, seen: Observation, model: nn.Module) -> None:
    ignorant = replace(seen, protocol=None, knowledge=Knowledge())
    for need in attack.needs:
        with pytest.raises(UnmetKnowledgeError, match=need):
            attack(ignorant, model, derive(0))


@pytest.mark.parametrize("defense", sorted(set(DEFENSES) - set(of_kind(ModelDefense))))
def test_takes_every_defense_it_is_told_of(brief: Attack, defense: str, model: nn.Module, batch: Batch) -> None:
    """As a client applies it: of its kind, of its parameters, and of what was drawn."""
    mechanism = made(defense)
    seen, drawn = defended(mechanism, model, batch)
    kind = Knowledge(defense_level=DefenseKnowledge.KIND, defense_kinds=(kind_of(mechanism),))
    known = Knowledge(defense_level=DefenseKnowledge.PARAMETERS, defenses=(mechanism,))
    for knowledge in [kind, known, *([replace(known, randomness=drawn)] if drawn else [])]:
        found = brief(replace(seen, knowledge=knowledge), model, derive(0))
        assert found.outcome in {Outcome.CONVERGED, Outcome.OUT_OF_STEPS}
        assert math.isfinite(found.loss)


def test_every_attack_is_listed_here() -> None:
    assert sorted(SMALL) == sorted(MARGIN) == sorted(ATTACKS)


def test_aliases_lead_somewhere_and_hide_nothing() -> None:
    assert set(ALIASES.values()) <= set(ATTACKS)
    assert not set(ALIASES) & set(ATTACKS)
