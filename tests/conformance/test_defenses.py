"""What every defense owes that rewrites the update. Runs on each such name in the registry."""

import copy
from dataclasses import replace

import pytest
import torch

from defenses import DEFENSES
from fl_sim.core.contracts import AnyDefense, Defense, has_density
from fl_sim.core.density import Choice, Interval, Normal, log_likelihood
from fl_sim.core.errors import ConfigError, NoDensityError
from fl_sim.core.part import units
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat, subtract
from fl_sim.core.types import Tensors, Update
from fl_sim.federation import wire
from tests.conformance.catalogue import BYTES, IMPOSSIBLE, NO_OP, SMALL, made, of_kind


def checked(defense: AnyDefense) -> Defense:
    assert isinstance(defense, Defense)
    return defense


PROBE = {"x": torch.zeros(2)}
BOUNDED = [name for name in of_kind(Defense) if checked(made(name)).bounds(Interval(PROBE, PROBE)) is not None]


@pytest.fixture(params=of_kind(Defense))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def defense(name: str) -> Defense:
    return checked(made(name))


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
    first, second = defense.protect(update, derive(5)), defense.protect(update, derive(5))
    assert all(torch.equal(t, second.update.delta[k]) for k, t in first.update.delta.items())
    assert all(torch.equal(t, second.randomness[k]) for k, t in first.randomness.items())


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
    large = Update(delta={"w": torch.randn(1000, 100, generator=derive(1))}, num_examples=1)
    sent = defense.codec.encode(defense.protect(large, derive(0)).update.delta)
    measured = sum(len(array.data) for array in wire.to_record(sent).values())
    assert measured == pytest.approx(BYTES[name] * 100_000, rel=0.02)


def test_draws_what_it_says_it_leaks(defense: Defense, update: Update) -> None:
    drawn = defense.protect(update, derive(0)).randomness
    assert {name.partition("/")[0] for name in drawn} == defense.leaks


def test_says_something_that_an_adversary_can_use(defense: Defense, update: Update) -> None:
    """Its noise or its choices; the likelihood that follows is finite and can be followed."""
    observed = defense.protect(update, derive(0)).update.delta
    clean = {k: torch.stack([t, -t]).requires_grad_() for k, t in update.delta.items()}
    noise = defense.noise(update.num_examples)
    choices = _choices(defense, clean) if noise is None else [Choice(1.0, clean)]
    assert sum(choice.probability for choice in choices) == pytest.approx(1)
    found = log_likelihood(Interval(observed, observed), choices, noise or Normal(0.1))
    assert found.shape == (2,)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert all(t.grad is not None and bool(t.grad.isfinite().all()) for t in clean.values())
    assert any(bool((t.grad != 0).any()) for t in clean.values() if t.grad is not None)


def test_has_noise_or_choices_but_not_both(defense: Defense, update: Update) -> None:
    clean = {k: t[None] for k, t in update.delta.items()}
    if defense.noise(1) is not None:
        with pytest.raises(NoDensityError, match=type(defense).__name__):
            defense.choices(clean, {})
    else:
        assert all(0 < choice.probability <= 1 for choice in defense.choices(clean, {}))


@pytest.mark.parametrize("slack", [0.0, 1e-4])
@pytest.mark.parametrize("bounded", BOUNDED)
def test_bounds_hold_what_was_put_in(bounded: str, slack: float, update: Update) -> None:
    """For outputs that are known exactly, and for those of which bounds are known in turn."""
    defense = checked(made(bounded))
    sent = defense.protect(update, derive(0)).update.delta
    low, high = ({k: t + side * slack for k, t in sent.items()} for side in (-1, 1))
    inner = defense.bounds(Interval(low, high))
    assert inner is not None
    for k, clean in update.delta.items():
        tolerance = 1e-6 * clean.abs().max()
        assert bool((inner.low[k] - tolerance <= clean).all())
        assert bool((clean <= inner.high[k] + tolerance).all())


@pytest.mark.parametrize("weakest", sorted(set(of_kind(Defense)) & set(NO_OP)))
def test_without_strength_it_does_nothing(weakest: str, update: Update) -> None:
    defense = checked(DEFENSES[weakest](**NO_OP[weakest]))
    assert _distance(defense.protect(update, derive(0)).update.delta, update.delta) == 0


@pytest.mark.parametrize("any_name", sorted(DEFENSES))
def test_refuses_impossible_strengths(any_name: str) -> None:
    with pytest.raises((ValueError, TypeError, ConfigError)):
        DEFENSES[any_name](**IMPOSSIBLE[any_name])


def test_every_defense_is_listed() -> None:
    assert sorted(SMALL) == sorted(IMPOSSIBLE) == sorted(DEFENSES)
    assert sorted(BYTES) == of_kind(Defense)
    assert set(NO_OP) < set(DEFENSES)


def _distance(left: Tensors, right: Tensors) -> float:
    return flat(subtract(left, right)).abs().max().item()


def _choices(defense: Defense, clean: Tensors) -> list[Choice]:
    return list(defense.choices(clean, {}))


@pytest.mark.parametrize("name", DEFENSES)
def test_its_numbers_have_units_and_it_says_what_to_use_against_it(name: str) -> None:
    kind, values = DEFENSES[name], vars(made(name))
    assert isinstance(kind, type)
    numbers = {k for k, v in values.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    assert numbers - {"seed"} == set(units(kind))
    assert getattr(kind, "surrogate", "") or has_density(kind)
