"""Solvers on problems whose minimum is known."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from attacks.solvers import LBFGS, Adam, Cost, Solver
from attacks.solvers.base import Best
from attacks.variables import Point
from fl_sim.core.seeds import derive
from fl_sim.core.types import Outcome

CURVATURE = torch.tensor([1.0, 3.0, 10.0])
Make = Callable[..., Solver]


def adam(**options: Any) -> Solver:
    defaults: dict[str, Any] = {"steps": 400, "step_size": 0.3, "schedule": "steps"}
    return Adam(**defaults | options)


def lbfgs(**options: Any) -> Solver:
    defaults: dict[str, Any] = {"steps": 60, "tolerance": -torch.inf}
    return LBFGS(**defaults | options)


both = pytest.mark.parametrize("make", [adam, lbfgs])


@dataclass
class Recorded:
    """An objective that is its own score, and remembers what it was asked."""

    cost: Callable[[Tensor], Tensor]
    points: list[Tensor] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def __call__(self, point: Point, progress: float) -> Cost:
        cost = self.cost(point["x"])
        self.points.append(point["x"].detach().clone())
        self.scores.append(cost.min().item())
        return Cost(cost, cost)


def bowl(x: Tensor) -> Tensor:
    """Least, 0, at (1, 1, 1)."""
    return (CURVATURE * (x - 1).square()).sum(1)


def cliff(x: Tensor) -> Tensor:
    """A bowl on the left; high up on the right a slope that ends in NaN at 60."""
    return torch.where(x > 50, 100 + (x - 60).log(), (x - 1).square()).sum(1)


def anywhere(point: Point) -> Point:
    return point


def start(*rows: float) -> Point:
    return {"x": torch.tensor(rows)[:, None].expand(-1, 3).clone()}


@both
def test_the_minimum_is_found(make: Make) -> None:
    found = make().solve(Recorded(bowl), {"x": torch.randn(1, 3, generator=derive(0))}, anywhere)
    assert (found.point["x"] - 1).abs().max() < 1e-3
    assert found.score < 1e-5
    assert found.outcome is Outcome.OUT_OF_STEPS


@both
def test_every_trial_is_searched_as_if_alone(make: Make) -> None:
    """Each start rolls into the hole on its side, and the deeper hole, at -1, is what is returned."""

    def holes(x: Tensor) -> Tensor:
        return ((x.square() - 1).square() + 0.1 * x).sum(1)

    alone = [make().solve(Recorded(holes), start(at), anywhere) for at in (0.8, -0.8, 1.2)]
    together = make().solve(Recorded(holes), start(0.8, -0.8, 1.2), anywhere)
    assert together.point["x"].shape == (1, 3)
    assert together.score == min(s.score for s in alone) == alone[1].score < alone[0].score - 0.1
    assert torch.equal(together.point["x"], alone[1].point["x"])


@both
def test_the_best_iterate_is_returned_not_the_last(make: Make) -> None:
    """Steps far too large: what follows is worse."""
    options: dict[str, Any] = {"steps": 20, "schedule": "constant"} if make is adam else {"steps": 20}
    asked = Recorded(bowl)
    found = make(step_size=3.0, **options).solve(asked, start(0.5), anywhere)
    assert found.score == min(asked.scores) < asked.scores[-1]
    assert bowl(found.point["x"]).item() == found.score


@both
def test_a_trial_that_turns_nan_disturbs_no_other(make: Make) -> None:
    asked = Recorded(cliff)
    found = make().solve(asked, start(4.0, 60.5), anywhere)
    alone = make().solve(Recorded(cliff), start(4.0), anywhere)
    assert any(bool(cliff(p).isnan().any()) for p in asked.points)
    assert torch.equal(found.point["x"], alone.point["x"])
    assert (found.score, found.outcome) == (alone.score, Outcome.OUT_OF_STEPS)


@both
def test_when_nothing_is_finite_the_start_is_returned_and_said_to_be_so(make: Make) -> None:
    found = make().solve(Recorded(lambda x: x.sum(1) * torch.nan), start(-1.0, -2.0), anywhere)
    assert found.outcome is Outcome.NON_FINITE
    assert found.score == torch.inf
    assert found.point["x"].tolist() == [[-1.0] * 3]


@both
def test_a_diverging_line_ends_with_its_best_point(make: Make) -> None:
    found = make().solve(Recorded(cliff), start(60.5), anywhere)
    assert bool(found.point["x"].isfinite().all())
    assert found.score < cliff(torch.full((1, 3), 60.5)).item()
    assert found.outcome is (Outcome.OUT_OF_STEPS if make is adam else Outcome.NON_FINITE)


@both
def test_time_runs_out_with_the_best_point_so_far(make: Make) -> None:
    asked = Recorded(bowl)
    found = make(seconds=1e-9).solve(asked, start(0.5), anywhere)
    assert (found.outcome, found.iterations) == (Outcome.OUT_OF_TIME, 1)
    assert found.score == min(asked.scores) < torch.inf


@both
def test_below_the_tolerance_it_has_converged(make: Make) -> None:
    found = make(tolerance=0.01).solve(Recorded(bowl), start(0.5, 2.0), anywhere)
    assert found.outcome is Outcome.CONVERGED
    assert found.score < 0.01
    assert found.iterations < 60


def test_adam_goes_on_until_every_trial_has_converged() -> None:
    found = adam(tolerance=0.01, schedule="constant").solve(Recorded(bowl), start(1.0, 20.0), anywhere)
    assert found.outcome is Outcome.CONVERGED
    assert found.iterations > 20 / 0.3


def test_adam_moves_on_where_one_gradient_is_undefined() -> None:
    def dented(x: Tensor) -> Tensor:
        return ((x - 1).square() + 0 * x.square().sqrt()).sum(1)  # 0 times infinity at 0

    found = adam().solve(Recorded(dented), {"x": torch.tensor([[0.0, 0.5, 2.0]])}, anywhere)
    assert found.point["x"][0].tolist() == pytest.approx([0, 1, 1], abs=1e-3)


def test_lbfgs_that_ran_away_tries_again_with_smaller_steps() -> None:
    def fenced(x: Tensor) -> Tensor:
        return torch.where((x - 1).abs() < 50, (x - 1).square(), torch.nan).sum(1)

    asked = Recorded(fenced)
    found = lbfgs(step_size=5.0).solve(asked, start(0.5), anywhere)
    assert bool(torch.tensor(asked.scores).isnan().any())  # it did run away
    assert found.outcome is Outcome.OUT_OF_STEPS
    assert found.score < 1e-3


@both
def test_only_allowed_points_are_tried(make: Make) -> None:
    asked = Recorded(bowl)
    found = make().solve(asked, start(-1.0), lambda point: {"x": point["x"].clamp(max=0.5)})
    assert max(p.max().item() for p in asked.points) == 0.5
    assert (found.point["x"] - 0.5).abs().max() < 1e-3


@both
def test_the_start_is_not_written_to(make: Make) -> None:
    point = start(0.5)
    make().solve(Recorded(bowl), point, anywhere)
    assert torch.equal(point["x"], start(0.5)["x"])


def test_points_are_compared_by_their_score_not_by_what_is_descended() -> None:
    def annealed(point: Point, progress: float) -> Cost:
        return Cost(progress * bowl(point["x"]), (point["x"] - 0.25).square().sum(1))

    found = Adam(steps=400, step_size=0.01).solve(annealed, start(0.0), anywhere)
    assert (found.point["x"] - 0.25).abs().max() < 0.02


@pytest.mark.parametrize(("step", "share"), [(0, 1), (374, 1), (375, 0.1), (625, 0.01), (874, 0.01), (875, 0.001)])
def test_adams_step_shrinks_at_three_five_and_seven_eighths(step: int, share: float) -> None:
    assert Adam(steps=1000, step_size=0.2, schedule="steps")._rate(step) == pytest.approx(0.2 * share)


def test_adams_other_schedules() -> None:
    assert Adam(steps=10, step_size=0.2)._rate(9) == 0.2
    assert Adam(steps=10, step_size=0.2, schedule="exponential", decay=0.5)._rate(3) == pytest.approx(0.025)


def test_signed_adam_moves_every_variable_alike() -> None:
    asked = Recorded(bowl)
    Adam(steps=3, step_size=0.1, signed=True).solve(asked, start(0.0), anywhere)
    assert asked.points[2].tolist() == [pytest.approx([0.2] * 3)]


def test_the_best_keeps_the_first_of_equals_and_never_nan() -> None:
    best = Best({"x": torch.zeros(2, 1)})
    for value, score in ((1.0, [3.0, torch.nan]), (2.0, [3.0, torch.nan]), (3.0, [torch.nan, 5.0])):
        best.offer({"x": torch.full((2, 1), value)}, torch.tensor(score))
    assert best.point["x"].flatten().tolist() == [1, 3]
    assert best.solution(Outcome.CONVERGED, 3).score == 3
