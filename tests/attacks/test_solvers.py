"""Solvers on problems whose minimum is known."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from attacks.solvers import LBFGS, Adam, Solver
from fl_sim.core.seeds import derive
from fl_sim.core.types import Outcome
from tests.attacks.bowls import Recorded, anywhere, bowl, cliff, start

Make = Callable[..., Solver]


def adam(**options: Any) -> Solver:
    defaults: dict[str, Any] = {"steps": 400, "step_size": 0.3, "schedule": "steps"}
    return Adam(**defaults | options)


def lbfgs(**options: Any) -> Solver:
    defaults: dict[str, Any] = {"steps": 60, "tolerance": -torch.inf}
    return LBFGS(**defaults | options)


both = pytest.mark.parametrize("make", [adam, lbfgs])


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
    """Steps far too large: what follows is worse. Adam chooses among the last eighth."""
    options: dict[str, Any] = {"steps": 40, "schedule": "constant"} if make is adam else {"steps": 20}
    asked = Recorded(bowl)
    found = make(step_size=3.0, **options).solve(asked, start(0.5), anywhere)
    candidates = asked.scores[35:] if make is adam else asked.scores
    assert found.score == min(candidates) < asked.scores[-1]
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
    asked = Recorded(cliff)
    found = make().solve(asked, start(60.5), anywhere)
    assert bool(found.point["x"].isfinite().all())
    assert found.score == min(s for s in (asked.scores[350:] if make is adam else asked.scores) if not math.isnan(s))
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
