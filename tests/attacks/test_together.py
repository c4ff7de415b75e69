"""Several observations in one search: as each alone, rounding apart; each leaves when it is done."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, nn

from attacks import ATTACKS
from attacks.memory import halved
from attacks.solvers import Adam, Cost, slope
from attacks.variables import Point
from defenses import DEFENSES
from fl_sim import models
from fl_sim.core.contracts import Attack, Defense
from fl_sim.core.knowledge import DefenseKnowledge, Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Observation, Outcome, Reconstruction, Tensors
from tests.attacks.bowls import anywhere, start
from tests.conftest import TASK, observe

COUNT = 3


def net(name: str = "lenet") -> nn.Module:
    return models.build(name, TASK, 0).eval()


def observations(model: nn.Module, examples: int = 1) -> list[Observation]:
    """Of other images and classes each, under known noise."""
    noise, seen = DEFENSES["gaussian"](std=1e-3), list[Observation]()
    assert isinstance(noise, Defense)
    for client in range(COUNT):
        rng = derive(client, "images")
        batch = Batch(torch.rand(examples, *TASK.image_shape, generator=rng), torch.arange(examples) + 3 * client)
        one = observe(model, batch)
        update = noise.protect(one.update, rng).update
        knowledge = Knowledge(defense_level=DefenseKnowledge.PARAMETERS, defenses=(noise,))
        seen.append(replace(one, client=client, update=update, knowledge=knowledge))
    return seen


def both(attack: Attack, seen: Sequence[Observation], model: nn.Module) -> tuple[list[Reconstruction], ...]:
    alone = [attack(one, model, derive(one.client)) for one in seen]
    return alone, attack.batched(seen, model, [derive(one.client) for one in seen])


@pytest.mark.parametrize(
    ("name", "options", "examples"),
    [
        ("inverting_gradients", {"steps": 12, "restarts": 2}, 2),
        ("inverting_gradients", {"steps": 12, "cosine": "plain"}, 1),
        ("bayes", {"steps": 12, "restarts": 2}, 2),
        ("l2", {"steps": 12}, 1),
        ("l1", {"steps": 12}, 1),
        ("cosine", {"steps": 12, "per": "tensor", "layers": "exponential"}, 1),
        ("bayes", {"steps": 12, "restarts": 2, "delta": 0.5}, 2),
        ("dlg", {"steps": 12, "restarts": 2}, 1),
        ("feature_inversion", {"steps": 12, "restarts": 2}, 1),
        ("ratio", {}, 1),
    ],
)
def test_each_is_found_as_alone(name: str, options: dict[str, Any], examples: int) -> None:
    model = net("mlp" if name == "ratio" else "lenet")
    seen = observations(model, examples)
    alone, together = both(ATTACKS[name](**options), seen, model)
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(a.labels, b.labels)
        assert (a.outcome, a.budget.iterations) == (b.outcome, b.budget.iterations)
        assert (a.images - b.images).abs().max() < 1e-3
        assert a.loss == pytest.approx(b.loss, rel=1e-4)
    assert not torch.allclose(together[0].images, together[1].images, atol=0.05)


def test_first_searches_are_together_too() -> None:
    model = net()
    alone, together = both(ATTACKS["bayes"](steps=8, cosine_steps=8, restarts=2), observations(model), model)
    for a, b in zip(alone, together, strict=True):
        assert (a.images - b.images).abs().max() < 1e-3
        assert a.budget.iterations == b.budget.iterations == 16


def test_the_group_term_does_not_join_observations() -> None:
    model = models.build("convnet", replace(TASK, image_shape=(1, 12, 12)), 0, width=2).eval()
    seen = [
        replace(one, task=replace(TASK, image_shape=(1, 12, 12)))
        for one in (
            observe(model, Batch(torch.rand(1, 1, 12, 12, generator=derive(c)), torch.tensor([c]))) for c in range(2)
        )
    ]
    attack = ATTACKS["grad_inversion"](steps=6, restarts=2, group=100.0)
    alone, together = both(attack, [replace(one, client=c) for c, one in enumerate(seen)], model)
    for a, b in zip(alone, together, strict=True):
        assert (a.images - b.images).abs().max() < 1e-3


def test_those_of_other_weights_are_searched_one_by_one() -> None:
    model = net()
    seen = observations(model)
    moved = {name: w + 0.01 for name, w in seen[1].broadcast.items()}
    seen[1] = replace(seen[1], broadcast=moved)
    alone, together = both(ATTACKS["inverting_gradients"](steps=5), seen, model)
    assert all(torch.equal(a.images, b.images) for a, b in zip(alone, together, strict=True))


class Bowls:
    """Observations of one trial each, whose best scores differ; notes how many are asked."""

    def __init__(self, floors: list[float], asked: list[int]) -> None:
        self.floors, self.asked = floors, asked

    def __call__(self, point: Point, progress: float) -> Cost:
        self.asked.append(len(point["x"]))
        cost = (point["x"] - 1).square().sum(1) + torch.tensor(self.floors)
        return Cost(cost, cost)

    def slope(self, point: Point, progress: float) -> tuple[Cost, Tensors]:
        return slope(self, point, progress)

    def project(self, point: Point) -> Point:
        return point

    def only(self, kept: Sequence[int]) -> "Bowls":
        return Bowls([self.floors[place] for place in kept], self.asked)


def test_what_has_converged_leaves_the_search_and_the_rest_goes_on() -> None:
    asked: list[int] = []
    adam = Adam(steps=200, step_size=0.1, tolerance=0.5)
    found = adam.solve_all(Bowls([9.0, 0.0, 0.2], asked), start(0.0, 5.0, 0.0), 3)
    assert [one.outcome for one in found] == [Outcome.OUT_OF_STEPS, Outcome.CONVERGED, Outcome.CONVERGED]
    assert found[2].iterations < found[1].iterations < found[0].iterations == 200
    assert sorted(set(asked)) == [1, 2, 3]
    assert [one.score for one in found] == pytest.approx([9.0, 0.0, 0.2], abs=0.5)
    alone = adam.solve(Bowls([9.0], []), start(0.0), anywhere)
    assert torch.allclose(alone.point["x"], found[0].point["x"])
    assert adam.solve_all(Bowls([0.0], asked), start(1.0), 1)[0].iterations == 25


def test_where_memory_ends_halves_are_tried_with_the_same_draws() -> None:
    tried: list[int] = []

    def search(items: Sequence[int], rngs: Sequence[Generator]) -> list[float]:
        tried.append(len(items))
        drawn = [torch.rand((), generator=rng).item() for rng in rngs]
        if len(items) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return drawn

    found = halved(search, range(5), [derive(i) for i in range(5)])
    assert tried == [5, 2, 3, 1, 2]
    assert found == [torch.rand((), generator=derive(i)).item() for i in range(5)]


def test_other_errors_and_single_items_are_not_halved() -> None:
    def broken(items: Sequence[int], rngs: Sequence[Generator]) -> list[float]:
        raise RuntimeError("shapes differ" if len(items) > 1 else "not enough memory")

    with pytest.raises(RuntimeError, match="shapes"):
        halved(broken, range(2), [derive(i) for i in range(2)])
    with pytest.raises(RuntimeError, match="memory"):
        halved(broken, range(1), [derive(0)])
