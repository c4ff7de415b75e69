"""``fl-sim search-policy``: what it writes and prints, and that the same order gives the same scores."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.policies import Bench, Order, Scored, command, ranked
from fl_sim.core.errors import ConfigError
from fl_sim.data import Source


@pytest.fixture
def order(tmp_path: Path) -> Order:
    return Order(
        source=Source(name="digits"), model="lenet", candidates=3, longest=2, images=2, train=40, epochs=1, slack=0.1,
        seed=0, out=tmp_path / "new" / "policies.json",
    )  # fmt: skip


def test_every_policy_is_in_the_file_and_the_best_are_printed(order: Order, capsys: pytest.CaptureFixture[str]) -> None:
    command(order, json=False)
    printed, found = capsys.readouterr().out, json.loads(order.out.read_text())
    assert {"", "21-13-3", "7-4-15"} < {row["policy"] for row in found["policies"]}
    assert len(found["policies"]) == 6
    assert all(-1 <= row["privacy"] <= 1 for row in found["policies"])
    (none,) = [row for row in found["policies"] if not row["policy"]]
    assert found["least_accuracy_score"] == pytest.approx(none["accuracy"] - 0.1)
    assert all((row["policy"] or "none") in printed for row in found["policies"])
    command(order, json=True)
    assert json.loads(capsys.readouterr().out) == found


def test_a_score_does_not_depend_on_what_else_is_scored(order: Order) -> None:
    bench = Bench.of(order)
    alone = bench.score("2-6")
    bench.score("29")
    assert bench.score("2-6") == alone
    assert Bench.of(replace(order, candidates=9)).score("2-6") == alone
    assert any(not torch.equal(w, bench.trained.weights[name]) for name, w in bench.fresh.weights.items())


def test_too_low_comes_last() -> None:
    rows = [Scored("a", 0.5, -1.2), Scored("b", 0.1, None), Scored("c", 0.4, -1.3), Scored("d", 0.2, -9.0)]
    assert [row.policy for row in ranked(rows, -1.35)] == ["c", "a", "b", "d"]


def test_refuses_what_cannot_be_searched(order: Order, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.json"):
        command(replace(order, out=tmp_path / "policies.txt"), json=True)
    with pytest.raises(ConfigError, match="test images of digits"):
        command(replace(order, train=10**6), json=True)
