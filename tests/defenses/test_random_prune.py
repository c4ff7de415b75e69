"""Random pruning: how much, whose mask, and what is said of it."""

import math
from typing import Literal, TypeAlias

import pytest
import torch

from defenses.sparsification import RandomPrune
from fl_sim.core.density import Choice
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat
from fl_sim.core.types import Tensors, Update

Mask: TypeAlias = Literal["fixed", "fresh"]
SHAPES = {"w": (200, 50), "v": (200, 50), "b": (50,)}
K = 20_050


def update(seed: int = 0) -> Update:
    return Update(delta={k: torch.randn(s, generator=derive(seed, k)) for k, s in SHAPES.items()}, num_examples=1)


def kept(defense: RandomPrune, client: int) -> Tensors:
    """Where the update that a client sends is not zero; clients have updates and generators of their own."""
    return {k: t != 0 for k, t in defense.protect(update(client), derive(client, "defense")).update.delta.items()}


def same(left: Tensors, right: Tensors) -> bool:
    return all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_rate_is_the_share_of_zeros(rate: float) -> None:
    protected = RandomPrune(rate=rate).protect(update(), derive(0))
    zeros = (flat(protected.update.delta) == 0).float().mean().item()
    assert zeros == pytest.approx(rate, abs=4 * math.sqrt(rate * (1 - rate) / K))
    assert protected.stats == pytest.approx({"kept": 1 - zeros})


def test_what_is_kept_is_sent_as_it_is_whatever_its_size() -> None:
    before, after = flat(update().delta), flat(RandomPrune(rate=0.5).protect(update(), derive(0)).update.delta)
    alive = after != 0
    assert torch.equal(after[alive], before[alive])
    assert abs(torch.corrcoef(torch.stack([alive.float(), before.abs()]))[0, 1].item()) < 4 / math.sqrt(K)


@pytest.mark.parametrize("mask", ["fixed", "fresh"])
def test_equally_shaped_tensors_have_masks_of_their_own(mask: Mask) -> None:
    found = kept(RandomPrune(rate=0.5, mask=mask), 1)
    assert (found["w"] == found["v"]).float().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / 100)


def test_a_fixed_mask_is_that_of_all_clients_and_of_its_own_seed() -> None:
    fixed = RandomPrune(rate=0.5)
    assert same(kept(fixed, 1), kept(fixed, 2))
    assert same(kept(fixed, 1), kept(RandomPrune(rate=0.5, seed=0), 3))
    assert not same(kept(fixed, 1), kept(RandomPrune(rate=0.5, seed=1), 1))


def test_a_fresh_mask_is_each_updates_own_and_that_of_its_generator() -> None:
    fresh = RandomPrune(rate=0.5, mask="fresh")
    assert not same(kept(fresh, 1), kept(fresh, 2))
    assert same(kept(fresh, 1), kept(fresh, 1))
    assert same(kept(fresh, 1), kept(RandomPrune(rate=0.5, mask="fresh", seed=9), 1))


@pytest.mark.parametrize("mask", ["fixed", "fresh"])
def test_the_mask_that_was_drawn_is_handed_over_and_explains_what_was_sent(mask: Mask) -> None:
    defense = RandomPrune(rate=0.5, mask=mask)
    protected = defense.protect(update(), derive(4))
    assert {name.split("/")[0] for name in protected.randomness} == defense.leaks
    for name, tensor in update().delta.items():
        assert torch.equal(protected.update.delta[name], tensor * protected.randomness[f"mask/{name}"])
    trials = {k: torch.stack([t, 2 * t]) for k, t in update().delta.items()}
    (choice,) = defense.choices(trials, protected.randomness)
    assert choice.probability == 1
    assert all(torch.equal(choice.values[k][0], t) for k, t in protected.update.delta.items())
    assert all(torch.equal(choice.values[k][1], 2 * t) for k, t in protected.update.delta.items())


def test_without_the_mask_each_entry_was_kept_or_pruned() -> None:
    trials = {k: t[None] for k, t in update().delta.items()}
    alive, pruned = RandomPrune(rate=0.3).choices(trials, {})
    assert (alive.probability, pruned.probability) == pytest.approx((0.7, 0.3))
    assert alive.values is trials
    assert all(torch.equal(pruned.values[k], torch.zeros_like(t)) for k, t in trials.items())
    assert RandomPrune(rate=0.0).choices(trials, {}) == (Choice(1.0, trials),)
