"""What every defense owes. Runs on each name in the registry."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from attacks.likelihoods import SURROGATES
from defenses import DEFENSES
from fl_sim.core.contracts import Defense
from fl_sim.core.errors import NoDensityError
from fl_sim.core.knowledge import Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat, subtract
from fl_sim.core.types import Tensors, Update
from fl_sim.federation import wire

SMALL: Mapping[str, dict[str, Any]] = {"gaussian": {"std": 0.1}, "topk": {"keep": 0.1}, "quantize": {}}
NO_OP: Mapping[str, dict[str, Any]] = {"gaussian": {"std": 0.0}, "topk": {"keep": 1.0}}
IMPOSSIBLE: Mapping[str, dict[str, Any]] = {"gaussian": {"std": -0.1}, "topk": {"keep": 2.0}, "quantize": {"bits": 8}}
BYTES: Mapping[str, float] = {"gaussian": 4.0, "topk": 0.8, "quantize": 1.0}  # per entry, on a large tensor


@pytest.fixture(params=sorted(DEFENSES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def defense(name: str) -> Defense:
    made = DEFENSES[name](**SMALL[name])
    assert isinstance(made, Defense)
    return made


def test_keeps_names_shapes_types_and_counts(defense: Defense, update: Update) -> None:
    out = defense.protect(update, derive(0)).update
    assert [(k, t.shape, t.dtype) for k, t in out.delta.items()] == [
        (k, t.shape, t.dtype) for k, t in update.delta.items()
    ]
    assert (out.num_examples, out.kind) == (update.num_examples, update.kind)


def test_leaves_the_update_alone(defense: Defense, update: Update) -> None:
    before = copy.deepcopy(update.delta)
    defense.protect(update, derive(0))
    assert all(torch.equal(before[k], update.delta[k]) for k in before)


def test_same_seed_same_protection(defense: Defense, update: Update) -> None:
    first, second = defense.protect(update, derive(5)).update.delta, defense.protect(update, derive(5)).update.delta
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_changes_something(defense: Defense, update: Update) -> None:
    assert _distance(defense.protect(update, derive(0)).update.delta, update.delta) > 0


def test_a_zero_update_stays_finite(defense: Defense, update: Update) -> None:
    zero = replace(update, delta={k: torch.zeros_like(t) for k, t in update.delta.items()})
    out = defense.protect(zero, derive(0))
    assert all(bool(t.isfinite().all()) for t in out.update.delta.values())
    assert all(isinstance(v, float) for v in out.stats.values())


def test_what_is_sent_is_what_arrives(defense: Defense, update: Update) -> None:
    delta = defense.protect(update, derive(0)).update.delta
    arrived = defense.codec.decode(defense.codec.encode(delta), delta)
    assert sorted(arrived) == sorted(delta)
    assert _distance({k: arrived[k] for k in delta}, delta) < 1e-6 * flat(delta).abs().max()


def test_costs_the_bytes_it_says(defense: Defense, name: str) -> None:
    large = Update(delta={"w": torch.randn(100_000, generator=derive(1))}, num_examples=1)
    sent = defense.codec.encode(defense.protect(large, derive(0)).update.delta)
    measured = sum(len(array.data) for array in wire.to_record(sent).values())
    assert measured == pytest.approx(BYTES[name] * 100_000, rel=0.01)


def test_has_a_density_or_names_a_surrogate(defense: Defense, update: Update) -> None:
    observed = defense.protect(update, derive(0)).update.delta
    clean = {k: t.clone().requires_grad_() for k, t in update.delta.items()}
    density = _density(defense, observed, clean)
    if isinstance(density, NoDensityError):
        assert density.surrogate in SURROGATES
        return
    assert density.shape == ()
    density.backward()  # type: ignore[no-untyped-call]
    assert all(t.grad is not None and bool(t.grad.isfinite().all()) for t in clean.values())


def test_without_strength_it_does_nothing(name: str, update: Update) -> None:
    if name not in NO_OP:
        pytest.skip("has no setting of no strength")
    defense = DEFENSES[name](**NO_OP[name])
    assert isinstance(defense, Defense)
    assert _distance(defense.protect(update, derive(0)).update.delta, update.delta) == 0


def test_refuses_impossible_strengths(name: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        DEFENSES[name](**IMPOSSIBLE[name])


def test_every_defense_is_listed_here() -> None:
    assert sorted(SMALL) == sorted(BYTES) == sorted(IMPOSSIBLE) == sorted(DEFENSES)


def _distance(left: Tensors, right: Tensors) -> float:
    return flat(subtract(left, right)).abs().max().item()


def _density(defense: Defense, observed: Tensors, clean: Tensors) -> torch.Tensor | NoDensityError:
    try:
        return defense.log_likelihood(observed, clean, Knowledge())
    except NoDensityError as error:
        return error
