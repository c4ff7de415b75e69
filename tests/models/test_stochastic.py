"""Dropout against its formula, and as part of a model."""

import math

import pytest
import torch
from torch.func import functional_call

from fl_sim.core.seeds import derive
from fl_sim.core.stochastic import draw_noise
from fl_sim.models import build
from fl_sim.models.stochastic import Dropout
from tests.conftest import TASK


def test_dropout_multiplies_by_what_was_drawn_and_else_by_one() -> None:
    module, features = Dropout(6, 0.25), torch.rand(2, 6, generator=derive(0))
    assert torch.equal(module(features), features)
    drawn = dict(draw_noise(module, 2, derive(1)))
    assert {round(x, 5) for x in drawn["kept.draw"].flatten().tolist()} == {0.0, 1.33333}
    assert torch.allclose(functional_call(module, drawn, (features,)), features * drawn["kept.draw"])


def test_dropout_draws_by_its_rate() -> None:
    drawn, law = draw_noise(Dropout(50, 0.3), 4000, derive(2))["kept.draw"], Dropout(50, 0.3).kept
    assert (drawn == 0).float().mean().item() == pytest.approx(0.3, abs=0.005)
    assert drawn.mean().item() == pytest.approx(1.0, abs=0.01)
    dropped, kept = law.surprise(torch.tensor([0.0, 1 / 0.7])).tolist()
    assert kept - dropped == pytest.approx(math.log(0.3) - math.log(0.7))
    assert torch.allclose(law.nearest(drawn), drawn)
    assert law.nearest(torch.tensor([-1.0, 0.5, 9.0])).tolist() == pytest.approx([0.0, 0.5, 1 / 0.7])


def test_an_mlp_with_dropout_has_the_weights_of_one_without_and_draws_behind_each_relu() -> None:
    net, plain = (build("mlp", TASK, 0, widths=[12, 8], dropout=rate) for rate in (0.5, 0.0))
    assert sorted(draw_noise(net, 1, derive(0))) == ["net.dropout1.kept.draw", "net.dropout2.kept.draw"]
    assert [name for name, _ in net.named_parameters()] == [name for name, _ in plain.named_parameters()]
