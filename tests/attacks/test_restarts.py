"""Restarts of one observation: each leaves the search when it is done, unless something compares them."""

from typing import Any

import pytest

from attacks.likelihoods import L2
from attacks.objective import Matching
from attacks.posterior import PosteriorSearch
from attacks.priors.group import GroupConsistency
from attacks.solvers import Adam, Cost
from attacks.variables import Pixels, Point
from fl_sim.core.seeds import derive
from fl_sim.core.types import Outcome, Tensors
from tests.attacks.test_together import both, net, observations


def asked_for(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Trials of each evaluation."""
    asked: list[int] = []
    plain = Matching.slope

    def noted(self: Matching, point: Point, progress: float) -> tuple[Cost, Tensors]:
        asked.append(len(point["pixels"]))
        return plain(self, point, progress)

    monkeypatch.setattr(Matching, "slope", noted)
    return asked


def restarted(**changed: Any) -> PosteriorSearch:
    solver = Adam(steps=100, step_size=0.05, tolerance=0.03)
    parts: dict[str, Any] = {"likelihood": L2(), "variables": Pixels(), "solver": solver, "restarts": 3}
    return PosteriorSearch(**(parts | changed))


def test_restarts_leave_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best is that of the restarts by themselves, and no restart waits for another."""
    asked, model = asked_for(monkeypatch), net()
    seen, attack = observations(model)[0], restarted()
    found = attack(seen, model, derive(0))
    ran = len(asked)
    assert asked[0] == 3 > asked[ran - 1]
    assert asked[:ran] == sorted(asked[:ran], reverse=True)
    assert found.budget.iterations == ran
    assert found.outcome is Outcome.CONVERGED
    both_ways = both(attack, observations(model), model)
    for alone, together in zip(*both_ways, strict=True):
        assert together.loss == pytest.approx(alone.loss, rel=1e-3)


@pytest.mark.parametrize(
    "changed",
    [
        {"priors": (GroupConsistency(weight=0.01),)},
        {"solver": Adam(steps=50, step_size=0.05, tolerance=0.03, seconds=100.0)},
        {"solver": Adam(steps=50, step_size=0.05)},
    ],
    ids=["compared", "timed", "endless"],
)
def test_restarts_that_have_to_stay_together_do(monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]) -> None:
    asked, model = asked_for(monkeypatch), net()
    restarted(**changed)(observations(model)[0], model, derive(0))
    assert set(asked) == {3}
