"""What ``Attack.__call__`` promises for every attack; defenses are held to theirs by the conformance tests."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import Generator, Tensor, nn

from fl_sim.core.codec import Dense
from fl_sim.core.contracts import Attack, Defense, Protected
from fl_sim.core.density import Interval
from fl_sim.core.errors import FlSimError, NoDensityError, UnmetKnowledgeError
from fl_sim.core.knowledge import DefenseKnowledge, Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.types import Budget, Observation, Outcome, Reconstruction, Update


@dataclass(frozen=True)
class Fixed(Attack):
    """Answers with the same images whatever it sees."""

    images: Tensor

    def _reconstruct(self, seen: Observation, model: nn.Module, rng: Generator, device: str) -> Reconstruction:
        budget = Budget(iterations=0, seconds=0.0, device=device)
        return Reconstruction(
            images=self.images,
            labels=torch.zeros(1, dtype=torch.int64),
            outcome=Outcome.CONVERGED,
            loss=0.0,
            budget=budget,
        )


@dataclass(frozen=True)
class Needy(Attack):
    """Asks for everything, and must not run without."""

    needs: ClassVar[frozenset[str]] = frozenset({"protocol", "labels", "defense"})

    def _reconstruct(self, seen: Observation, model: nn.Module, rng: Generator, device: str) -> Reconstruction:
        raise AssertionError("ran")


GRANTED = Knowledge(labels=torch.tensor([2]), defense_level=DefenseKnowledge.PARAMETERS)
WITHHELD: dict[str, Callable[[Observation], Observation]] = {
    "labels": lambda seen: replace(seen, knowledge=replace(GRANTED, labels=None)),
    "defense": lambda seen: replace(seen, knowledge=replace(GRANTED, defense_level=DefenseKnowledge.UNKNOWN)),
    "protocol": lambda seen: replace(seen, knowledge=GRANTED, protocol=None),
}


def test_a_good_answer_is_handed_on_as_it_is(seen: Observation, model: nn.Module) -> None:
    images = torch.rand(1, 1, 8, 8, generator=derive(0))
    found = Fixed(images)(seen, model, derive(0), device="cpu")
    assert found.images is images
    assert found.budget.device == "cpu"


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 1, 8, 8), (1, 3, 8, 8), (1, 1, 8, 7)])
def test_an_answer_of_the_wrong_shape_is_refused(seen: Observation, model: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(FlSimError, match=r"Fixed must return images \(1, 1, 8, 8\) in \[0, 1\], got"):
        Fixed(torch.zeros(shape))(seen, model, derive(0))


@pytest.mark.parametrize("value", [-1e-3, 1 + 1e-3, float("nan"), float("inf")])
def test_one_pixel_out_of_range_is_refused(seen: Observation, model: nn.Module, value: float) -> None:
    images = torch.zeros(1, 1, 8, 8)
    images[0, 0, 3, 5] = value
    with pytest.raises(FlSimError, match=r"in \[0, 1\]"):
        Fixed(images)(seen, model, derive(0))


@pytest.mark.parametrize("need", sorted(WITHHELD))
def test_an_unmet_need_is_refused_by_name_before_the_attack_runs(
    seen: Observation, model: nn.Module, need: str
) -> None:
    with pytest.raises(UnmetKnowledgeError, match=rf"Needy needs to know {need}, .*: set {need} = .* in \[adversary\]"):
        Needy()(WITHHELD[need](seen), model, derive(0))


def test_all_unmet_needs_are_named_at_once(seen: Observation, model: nn.Module) -> None:
    with pytest.raises(UnmetKnowledgeError, match="defense, labels, protocol"):
        Needy()(replace(seen, protocol=None, knowledge=Knowledge()), model, derive(0))


def test_with_all_needs_met_the_attack_runs(seen: Observation, model: nn.Module) -> None:
    with pytest.raises(AssertionError, match="ran"):
        Needy()(replace(seen, knowledge=GRANTED), model, derive(0))


def test_dense_sends_every_tensor_as_it_is() -> None:
    payload = {"w": torch.ones(2)}
    assert Dense().decode(Dense().encode(payload), payload) is payload


class Opaque(Defense):
    """Says nothing of what it does."""

    def protect(self, update: Update, rng: Generator) -> Protected:
        return Protected(update, {})


def test_a_defense_that_says_nothing_of_itself_has_no_density() -> None:
    tree = {"w": torch.ones(1, 2)}
    with pytest.raises(NoDensityError, match="Opaque before noise has no density"):
        Opaque().choices(tree, {})
    assert Opaque().noise(3) is None
    assert Opaque().bounds(Interval(tree, tree)) is None
    assert Opaque().leaks == frozenset()
