"""The self-test passes, and fails where something is broken."""

import json
from collections.abc import Callable
from types import MappingProxyType

import pytest
import torch

from defenses.dpsgd import DpSgd
from defenses.noise import Gaussian
from defenses.quantization import Quantize
from defenses.sparsification import RandomPrune, TopK
from experiments import checks
from experiments.checks.answer import Answer
from fl_sim.core.density import Choice, Interval, Noise, Normal
from fl_sim.core.types import Tensors
from tests.experiments.command import fl_sim


def passes(name: str) -> bool:
    answer = checks.CHECKS[name]()
    return answer.low <= answer.figure <= answer.high


@pytest.mark.slow
@pytest.mark.parametrize("name", checks.CHECKS)
def test_every_check_passes(name: str) -> None:
    check = checks.run_check(name)
    assert check.passed, str(check)


def test_checks_in_processes_of_their_own_answer_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: checks.CHECKS[name] for name in ("K13 gaussian", "K13 laplace", "K13 dpsgd")}
    monkeypatch.setattr(checks, "CHECKS", MappingProxyType(few))
    assert [(c.name, c.figure) for c in checks.run_checks(2)] == [(c.name, c.figure) for c in checks.run_checks()]


@pytest.mark.parametrize("number", range(1, 17))
def test_every_known_answer_has_a_check(number: int) -> None:
    assert any(name.split()[0] == f"K{number}" for name in checks.CHECKS)


def wrong_sigma(self: Gaussian, num_examples: int) -> Noise:
    return Normal(1.1 * self.std)


def wrong_averaging(self: Gaussian, num_examples: int) -> Noise:
    return Normal(self.std)


def mask_ignored(self: RandomPrune, clean: Tensors, drawn: Tensors) -> tuple[Choice, ...]:
    return (Choice(1.0, clean),)


def wrong_batch(self: DpSgd, num_examples: int) -> Noise:
    return Normal(self.noise_multiplier * self.clip / num_examples**0.5)


def wrong_chances(self: RandomPrune, clean: Tensors, drawn: Tensors) -> tuple[Choice, ...]:
    pruned = {name: torch.zeros_like(t) for name, t in clean.items()}
    return Choice(self.rate, clean), Choice(1 - self.rate, pruned)


def chances_above_one(self: RandomPrune, clean: Tensors, drawn: Tensors) -> tuple[Choice, ...]:
    pruned = {name: torch.zeros_like(t) for name, t in clean.items()}
    return Choice(1.0, clean), Choice(1.0, pruned)


def wide_cells(self: Quantize, output: Interval) -> Interval:
    return Interval({k: t - 1 for k, t in output.low.items()}, {k: t + 1 for k, t in output.high.items()})


def no_bounds(self: TopK, output: Interval) -> Interval:
    return output


@pytest.mark.parametrize(
    ("owner", "method", "broken", "caught"),
    [
        (Gaussian, "noise", wrong_sigma, ("K13 gaussian", "K13 averaged noise", "K13 known mask")),
        (Gaussian, "noise", wrong_averaging, ("K13 averaged noise",)),
        (RandomPrune, "choices", mask_ignored, ("K13 known mask", "K5 known mask")),
        (RandomPrune, "choices", wrong_chances, ("K13 unknown mask",)),
        (RandomPrune, "choices", chances_above_one, ("K13 unknown mask",)),
        (DpSgd, "noise", wrong_batch, ("K13 dpsgd",)),
        (Quantize, "bounds", wide_cells, ("K13 cells",)),
        (TopK, "bounds", no_bounds, ("K13 top-k",)),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_broken_likelihood_is_found(
    owner: type, method: str, broken: Callable[..., object], caught: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(passes(name) for name in caught)
    monkeypatch.setattr(owner, method, broken)
    assert not any(passes(name) for name in caught)


def test_a_broken_likelihood_ends_the_command_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {name: checks.CHECKS[name] for name in ("K13 gaussian", "K13 laplace")}
    monkeypatch.setattr(checks, "CHECKS", MappingProxyType(kept))
    monkeypatch.setattr(Gaussian, "noise", wrong_sigma)
    assert selftest(monkeypatch) == 1
    said = json.loads(capsys.readouterr().out)
    assert [check["passed"] for check in said["checks"]] == [False, True]
    assert said["passed"] is False


def test_a_figure_that_is_no_number_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    broken = Answer(float("nan"), 0.0, 1.0, "a number")
    monkeypatch.setattr(checks, "CHECKS", MappingProxyType({"broken": lambda: broken}))
    assert selftest(monkeypatch) == 1
    assert json.loads(capsys.readouterr().out)["checks"][0]["figure"] is None


def selftest(monkeypatch: pytest.MonkeyPatch) -> int:
    return fl_sim(monkeypatch, "selftest", "--json", "--processes", "1")
