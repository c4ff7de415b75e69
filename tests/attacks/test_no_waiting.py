"""A search does not wait for its device: nothing in its loop asks for a number."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from attacks.likelihoods import L2, Cosine, Likelihood
from attacks.objective import Matching
from attacks.posterior import PosteriorSearch
from attacks.priors import Prior, TotalVariation
from attacks.problem import Problem
from attacks.solvers import Adam
from attacks.variables import Pixels
from fl_sim.core.seeds import derive
from tests.attacks.test_together import net, observations

OPERATIONS = ("_local_scalar_dense", "nonzero", "equal", "masked_select")
METHODS = ("tolist", "item", "__bool__", "__float__", "__int__", "cpu", "numpy")


class Watched(TorchDispatchMode):
    """Notes every operation whose result the host would wait for on a GPU."""

    def __init__(self, waits: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits = waits

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if (name := func.overloadpacket.__name__) in OPERATIONS:
            self.waits.append(name)
        return func(*args, **(kwargs or {}))


def watched(monkeypatch: pytest.MonkeyPatch, solver: Adam, likelihood: Likelihood, *priors: Prior) -> list[str]:
    model, waits = net(), list[str]()
    problems = [Problem.of(one, model, derive(0), "cpu") for one in observations(model)]
    attack = PosteriorSearch(likelihood=likelihood, priors=priors, variables=Pixels(), solver=solver)
    start = torch.cat([Pixels().start(one, 2, derive(one.seen.client))["pixels"] for one in problems])
    matching = Matching(attack._terms(), [problems[0].shared(one) for one in problems], 2, [], whole=False)
    matching.slope({"pixels": start.clone().requires_grad_()}, 0.0)
    with monkeypatch.context() as patch, Watched(waits):
        for name in METHODS:
            patch.setattr(torch.Tensor, name, noting(getattr(torch.Tensor, name), name, waits))
        solver.solve_all(matching, {"pixels": start}, len(problems))
    return waits


def noting(method: Callable[..., Any], name: str, waits: list[str]) -> Callable[..., Any]:
    def noted(*args: Any, **options: Any) -> Any:
        waits.append(name)
        return method(*args, **options)

    return noted


@pytest.mark.parametrize("likelihood", [L2(), Cosine()], ids=["l2", "cosine"])
def test_what_waits_does_not_grow_with_the_steps(monkeypatch: pytest.MonkeyPatch, likelihood: Likelihood) -> None:
    short, long = (
        watched(monkeypatch, Adam(steps=steps, signed=True), likelihood, TotalVariation(weight=1e-3))
        for steps in (30, 90)
    )
    assert short == long


def test_who_may_leave_is_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the test above can fail."""
    short, long = (len(watched(monkeypatch, Adam(steps=steps, tolerance=-1.0), L2())) for steps in (30, 90))
    assert long > short
