"""L-BFGS on all trials at once against PyTorch's, trial by trial."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from attacks.solvers import LBFGS, Cost
from attacks.variables import Point
from fl_sim.core.seeds import derive
from fl_sim.core.types import Outcome
from tests.attacks.bowls import anywhere
from tests.attacks.test_together import Bowls


def valley(point: Point) -> Tensor:
    """Rosenbrock's, in six dimensions that two variables share; ``(T,)``."""
    x = torch.cat([point["a"].flatten(1), point["b"].flatten(1)], 1)
    return (100 * (x[:, 1:] - x[:, :-1].square()).square() + (1 - x[:, :-1]).square()).sum(1)


def starts() -> dict[str, Tensor]:
    drawn = torch.randn(5, 6, generator=derive(0), dtype=torch.float64)
    return {"a": drawn[:, :4].view(5, 2, 2), "b": drawn[:, 4:]}


@pytest.mark.parametrize("history", [3, 100])
def test_every_trial_takes_the_steps_of_the_library(history: int) -> None:
    asked: list[Point] = []

    def objective(point: Point, progress: float) -> Cost:
        asked.append({name: v.detach().clone() for name, v in point.items()})
        return Cost(valley(point), valley(point))

    LBFGS(steps=40, step_size=0.5, history=history).solve(objective, starts(), anywhere)
    for trial in range(5):
        own = {name: v[trial : trial + 1].clone().requires_grad_() for name, v in starts().items()}
        library = torch.optim.LBFGS(list(own.values()), lr=0.5, max_iter=1, history_size=history)

        def closure(own: Point = own, library: torch.optim.LBFGS = library) -> Tensor:
            library.zero_grad()
            cost = valley(own).sum()
            cost.backward()  # type: ignore[no-untyped-call]
            return cost

        for step in range(40):
            for name, v in own.items():
                assert torch.allclose(asked[step][name][trial], v[0], rtol=1e-6, atol=1e-9), (trial, step, name)
            library.step(closure)  # type: ignore[no-untyped-call]


def test_a_step_that_was_cut_short_is_remembered_as_it_was_taken() -> None:
    """Behind a wall at 0.5 the curvature of a quadratic is still found at once: two steps to the minimum along it."""

    def objective(point: Point, progress: float) -> Cost:
        cost = (torch.tensor([1.0, 25.0]) * (point["x"] - torch.tensor([2.0, 0.2])).square()).sum(1)
        return Cost(cost, cost)

    def fenced(point: Point) -> Point:
        return {"x": torch.cat([point["x"][:, :1].clamp(max=0.5), point["x"][:, 1:]], 1)}

    found = LBFGS(steps=30).solve(objective, {"x": torch.zeros(1, 2)}, fenced)
    assert found.point["x"][0].tolist() == pytest.approx([0.5, 0.2], abs=1e-3)


def test_what_has_converged_leaves_and_the_rest_goes_on() -> None:
    asked: list[int] = []
    found = LBFGS(steps=60, step_size=0.02, tolerance=0.5).solve_all(
        Bowls([9.0, 0.0], asked), {"x": torch.tensor([[5.0] * 3, [1.3] * 3])}, 2
    )
    assert [one.outcome for one in found] == [Outcome.OUT_OF_STEPS, Outcome.CONVERGED]
    assert [one.iterations for one in found] == [60, 25]
    assert sorted(set(asked)) == [1, 2]


def test_a_trial_on_flat_ground_leaves_and_the_rest_goes_on() -> None:
    """It would stand there for all steps that are left; its best point is what it had."""
    asked: list[int] = []

    class Plains(Bowls):
        """Flat beyond 4."""

        def __call__(self, point: Point, progress: float) -> Cost:
            cost = super().__call__({"x": point["x"].clamp(max=4.0)}, progress)
            return Cost(cost.descended + 0.0 * point["x"].sum(1), cost.score)

        def only(self, kept: Sequence[int]) -> "Plains":
            return Plains([self.floors[place] for place in kept], self.asked)

    starts = {"x": torch.tensor([[9.0] * 3, [3.0] * 3])}
    found = LBFGS(steps=60, step_size=0.05).solve_all(Plains([0.0, 0.0], asked), starts, 2)
    assert [one.iterations for one in found] == [25, 60]
    assert [one.outcome for one in found] == [Outcome.OUT_OF_STEPS] * 2
    assert found[0].point["x"].tolist() == [[9.0] * 3]
    assert found[1].score < 0.1
