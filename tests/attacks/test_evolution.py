"""CMA-ES on problems whose minimum is known."""

import pytest
import torch

from attacks.solvers import CmaEs
from fl_sim.core.seeds import derive
from fl_sim.core.types import Outcome
from tests.attacks.bowls import Recorded, anywhere, bowl
from tests.attacks.test_together import Bowls


def population(size: int, entries: int = 3) -> dict[str, torch.Tensor]:
    return {"x": torch.randn(size, entries, generator=derive(0))}


def test_it_finds_a_minimum_without_derivatives() -> None:
    found = CmaEs(steps=80, trials=12).solve(Recorded(bowl), population(12), anywhere)
    assert found.score < 1e-4
    assert found.outcome == Outcome.OUT_OF_STEPS


def test_several_observations_are_searched_as_one_is() -> None:
    both = CmaEs(steps=40, trials=10).solve_all(Bowls([9.0] * 10 + [4.0] * 10, []), population(20), 2)
    assert [one.score for one in both] == pytest.approx([9.0, 4.0], abs=1e-2)


def test_it_stays_in_its_bounds_and_where_it_is_projected() -> None:
    recorded = Recorded(bowl)
    found = CmaEs(steps=30, trials=10, bound=0.25).solve(recorded, population(10), anywhere)
    assert found.point["x"].abs().max() <= 0.25
    fenced = CmaEs(steps=30, trials=10).solve(Recorded(bowl), population(10), lambda p: {"x": p["x"].clamp(max=0.1)})
    assert fenced.point["x"].max() <= 0.1


def test_what_is_not_a_number_loses() -> None:
    found = CmaEs(steps=40, trials=10).solve(
        Recorded(lambda x: bowl(x) + torch.where(x[:, 0] < 0, torch.nan, 0.0)), population(10), anywhere
    )
    assert found.score < 0.1
