"""A search's step as one compiled function, also for what is left of a search."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from attacks import ATTACKS
from attacks.compilation import Program, compiling, pays
from fl_sim import models
from fl_sim.core.seeds import derive
from tests.attacks.test_together import net, observations
from tests.conftest import TASK


def test_long_work_on_small_networks_is_worth_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "true")
    assert pays(10**6, 1000, net())
    assert not pays(10**3, 1000, net())
    assert not pays(10**6, 100, net())
    assert not pays(10**6, 1000, nn.Linear(2000, 1000))
    monkeypatch.setenv("CXX", "no such compiler")
    assert not pays(10**6, 1000, net())


def test_what_cannot_be_compiled_runs_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler")

    model = net()
    seen, attack = observations(model), ATTACKS["inverting_gradients"](steps=3)
    monkeypatch.setattr("attacks.compilation.make_fx", refused)
    plain = attack.batched(seen, model, [derive(0) for _ in seen])
    with compiling(tmp_path), caplog.at_level(logging.WARNING):
        found = attack.batched(seen, model, [derive(0) for _ in seen])
    assert "no compiler" in caplog.text
    assert all(torch.equal(a.images, b.images) for a, b in zip(plain, found, strict=True))


@pytest.mark.slow
def test_compiled_searches_find_the_same_also_for_other_observations(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The second time nothing is compiled: the observations are arguments."""
    model = net()
    seen, attack = observations(model), ATTACKS["inverting_gradients"](steps=12)
    others = observations(models.build("lenet", TASK, 7).eval())
    for some in (seen, others):
        plain = attack.batched(some, model, [derive(0) for _ in some])
        with compiling(tmp_path):
            fast = attack.batched(some, model, [derive(0) for _ in some])
        for a, b in zip(plain, fast, strict=True):
            assert (a.images - b.images).abs().max() < 1e-3
            assert a.loss == pytest.approx(b.loss, rel=1e-4)
    assert any(tmp_path.iterdir())
    assert "not compiled" not in caplog.text


@pytest.mark.slow
def test_a_compiled_search_that_some_leave_goes_on_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of three leaves, well before the end; the others are found as they are without compiling."""
    model = net()
    seen, options = observations(model), {"signed": False, "step_size": 0.8, "schedule": "constant"}
    early = ATTACKS["inverting_gradients"](steps=50, **options).batched(seen, model, [derive(0) for _ in seen])
    least = sorted(one.loss for one in early)
    attack = ATTACKS["inverting_gradients"](steps=100, tolerance=least[0] + 1e-4, **options)
    plain = attack.batched(seen, model, [derive(0) for _ in seen])
    assert sorted(one.budget.iterations for one in plain)[0] <= 75

    calls: list[int] = []
    narrowed = Program.only

    def noted(program: Program, kept: torch.Tensor) -> Program | None:
        left = narrowed(program, kept)
        assert left is not None

        def step(*given: torch.Tensor) -> tuple[torch.Tensor, ...]:
            calls.append(len(kept))
            return left.step(*given)

        return replace(left, step=step)

    monkeypatch.setattr(Program, "only", noted)
    with compiling(tmp_path):
        fast = attack.batched(seen, model, [derive(0) for _ in seen])
    assert calls
    assert set(calls) == {2}
    for a, b in zip(plain, fast, strict=True):
        assert (a.outcome, a.budget.iterations) == (b.outcome, b.budget.iterations)
        assert (a.images - b.images).abs().max() < 1e-2


def test_what_is_left_of_a_program_computes_what_it_would_of_all() -> None:
    calls: list[int] = []

    def step(factor: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        calls.append(len(values))
        return factor * values + torch.arange(6.0), values.square()

    whole, values = Program(step, 6, 6), torch.rand(6, generator=derive(0))
    four = whole.only(torch.tensor([0, 2, 3, 5]))
    assert four is not None
    for given, expected in zip(
        four(torch.tensor(2.0), values[[0, 2, 3, 5]]), whole(torch.tensor(2.0), values), strict=True
    ):
        assert torch.equal(given, expected[[0, 2, 3, 5]])
    assert four.only(torch.tensor([1, 3])) is None  # most of the six would be thrown away
    assert calls == [6, 6]
    again = Program(step, 6, 6).only(torch.tensor([1, 2, 3, 4, 5]))
    assert again is not None
    last = again.only(torch.tensor([0, 2, 3, 4]))
    assert last is not None
    kept = values[[1, 3, 4, 5]]
    assert torch.equal(last(torch.tensor(2.0), kept)[0], step(torch.tensor(2.0), values)[0][[1, 3, 4, 5]])
