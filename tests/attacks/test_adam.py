"""What Adam does in its own way; what it shares with other solvers is in test_solvers."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from attacks.solvers import Adam, Cost, Solver, base
from attacks.solvers.base import Best
from attacks.variables import Point
from fl_sim.core.types import Outcome
from tests.attacks.bowls import Recorded, anywhere, bowl, start


def adam(**options: Any) -> Solver:
    defaults: dict[str, Any] = {"steps": 400, "step_size": 0.3, "schedule": "steps"}
    return Adam(**defaults | options)


def test_adam_forgets_an_early_point_that_scored_better_than_where_it_settles() -> None:
    """Unless nothing later is a number, or it is cut short."""

    def treacherous(point: Point, progress: float) -> Cost:
        bad = bowl(point["x"]) + 7
        return Cost(bad, bad - 100 if progress < 0.1 else bad)

    def vanishing(point: Point, progress: float) -> Cost:
        good = bowl(point["x"])
        return Cost(good, good if progress < 0.5 else good * torch.nan)

    settled = adam().solve(treacherous, start(0.0), anywhere)
    assert settled.score == pytest.approx(7, abs=1e-3)
    assert (settled.point["x"] - 1).abs().max() < 1e-2
    lost = adam(steps=16).solve(vanishing, start(0.0), anywhere)
    assert lost.score < bowl(torch.zeros(1, 3)).item()
    assert lost.outcome is Outcome.OUT_OF_STEPS
    assert adam(seconds=1e-9).solve(treacherous, start(0.0), anywhere).score < 0


def test_adam_cut_short_while_nothing_is_a_number_keeps_what_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the last eighth, where points are gathered anew."""
    now = [0.0]
    monkeypatch.setattr(base, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def late(point: Point, progress: float) -> Cost:
        now[0], good = progress, bowl(point["x"])
        return Cost(good, good if progress < 0.875 else good * torch.nan)

    found = adam(steps=16, seconds=0.9).solve(late, start(0.0), anywhere)
    assert found.outcome is Outcome.OUT_OF_TIME
    assert found.score < bowl(torch.zeros(1, 3)).item()


def test_adam_goes_on_until_every_trial_has_converged() -> None:
    found = adam(tolerance=0.01, schedule="constant").solve(Recorded(bowl), start(1.0, 20.0), anywhere)
    assert found.outcome is Outcome.CONVERGED
    assert found.iterations > 20 / 0.3


def test_adam_moves_on_where_one_gradient_is_undefined() -> None:
    def dented(x: Tensor) -> Tensor:
        return ((x - 1).square() + 0 * x.square().sqrt()).sum(1)  # 0 times infinity at 0

    found = adam().solve(Recorded(dented), {"x": torch.tensor([[0.0, 0.5, 2.0]])}, anywhere)
    assert found.point["x"][0].tolist() == pytest.approx([0, 1, 1], abs=1e-3)


def test_points_are_compared_by_their_score_not_by_what_is_descended() -> None:
    """What is descended leads past 0.9 in the last eighth."""

    def moving(point: Point, progress: float) -> Cost:
        aim = 0.5 + 2 * max(0.0, progress - 0.7)
        return Cost((point["x"] - aim).square().sum(1), (point["x"] - 0.9).square().sum(1))

    asked: list[float] = []

    def recorded(point: Point, progress: float) -> Cost:
        asked.append(point["x"].mean().item())
        return moving(point, progress)

    found = Adam(steps=400, step_size=0.01).solve(recorded, start(0.5), anywhere)
    assert asked[350] < 0.88
    assert asked[-1] > 0.95
    assert (found.point["x"] - 0.9).abs().max() < 0.01


@pytest.mark.parametrize(("step", "share"), [(0, 1), (374, 1), (375, 0.1), (625, 0.01), (874, 0.01), (875, 0.001)])
def test_adams_step_shrinks_at_three_five_and_seven_eighths(step: int, share: float) -> None:
    assert Adam(steps=1000, step_size=0.2, schedule="steps").rate(step) == pytest.approx(0.2 * share)


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 0), (10, 0.02), (50, 0.1), (250, 0.1), (500, 0.075), (750, 0.025), (990, 4.4e-5)]
)
def test_adams_ramp_is_gifds(step: int, rate: float) -> None:
    """As in the authors' code (at ff243fe)."""
    assert Adam(steps=1000, step_size=0.1, schedule="ramp").rate(step) == pytest.approx(rate, rel=0.01)


def test_adams_other_schedules() -> None:
    assert Adam(steps=10, step_size=0.2).rate(9) == 0.2
    assert Adam(steps=10, step_size=0.2, schedule="exponential", decay=0.5).rate(3) == pytest.approx(0.025)


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
