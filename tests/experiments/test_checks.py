"""The self-test passes, and fails where something is broken."""

import json
import sys
from types import MappingProxyType

import pytest
import torch

from defenses.noise import Gaussian
from experiments import checks, cli
from fl_sim.core.contracts import Protected
from fl_sim.core.types import Update


def test_every_check_passes() -> None:
    found = list(checks.run_checks())
    assert [check.name for check in found] == list(checks.CHECKS)
    assert [str(check) for check in found if not check.passed] == []


def test_a_wrong_likelihood_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class TooLoud(Gaussian):
        def protect(self, update: Update, rng: torch.Generator) -> Protected:
            return Gaussian(std=1.2 * self.std).protect(update, rng)

    monkeypatch.setattr(checks, "DEFENSES", {"gaussian": TooLoud})
    answer = checks.gaussian_is_calibrated()
    assert not answer.low <= answer.figure <= answer.high


def test_a_failed_check_ends_with_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    broken = checks.Answer(float("nan"), 0.0, 1.0, "a number")
    monkeypatch.setattr(checks, "CHECKS", MappingProxyType({"broken": lambda: broken}))
    monkeypatch.setattr(sys, "argv", ["fl-sim", "selftest", "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    said = json.loads(capsys.readouterr().out)
    assert said["passed"] is False
    assert said["checks"][0]["figure"] is None
