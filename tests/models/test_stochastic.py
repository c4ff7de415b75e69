"""PRECODE's bottleneck and dropout against their formulas, and as part of a model."""

import math

import pytest
import torch
from torch.func import functional_call
from torch.nn.functional import linear, softplus

from fl_sim.core.seeds import derive
from fl_sim.core.stochastic import draw_noise
from fl_sim.core.types import Batch
from fl_sim.models import build
from fl_sim.models.stochastic import Bottleneck, Dropout
from fl_sim.training.local import State, evaluate, gradient, state_of
from tests.conftest import TASK

DRAW = "net.bottleneck.noise.draw"


@pytest.mark.parametrize("number", [1, 6])
def test_the_bottleneck_is_mean_plus_softplus_times_draw_and_back(number: int) -> None:
    torch.manual_seed(0)
    module, features = Bottleneck(7, 3), torch.randn(6, 7, generator=derive(0))
    drawn = torch.randn(number, 3, generator=derive(1))
    found = functional_call(module, {"noise.draw": drawn}, (features,))
    coded = linear(features, module.encoder.weight, module.encoder.bias)
    z = coded[:, :3] + softplus(coded[:, 3:]) * drawn
    assert torch.allclose(found, linear(z, module.decoder.weight, module.decoder.bias), atol=1e-6)
    without = linear(coded[:, :3], module.decoder.weight, module.decoder.bias)
    assert torch.allclose(module(features), without, atol=1e-6)


def test_it_sits_before_the_head_and_is_off_by_default() -> None:
    with_it, without = build("mlp", TASK, 0, widths=[12, 9], bottleneck=4), build("mlp", TASK, 0, widths=[12, 9])
    names = [name.removeprefix("net.") for name, _ in with_it.named_parameters() if name.endswith("weight")]
    assert names == [
        "fc1.weight",
        "fc2.weight",
        "bottleneck.encoder.weight",
        "bottleneck.decoder.weight",
        "head.weight",
    ]
    assert with_it.get_parameter("net.bottleneck.encoder.weight").shape == (8, 9)
    assert with_it.get_parameter("net.bottleneck.decoder.weight").shape == (9, 4)
    assert not [name for name, _ in without.named_buffers() if name.endswith("draw")]


def test_what_is_drawn_is_neither_state_nor_weight() -> None:
    net = build("mlp", TASK, 0, widths=[12], bottleneck=4)
    assert DRAW in dict(net.named_buffers())
    assert DRAW not in net.state_dict()
    assert state_of(net).buffers == {}


def test_a_draw_changes_gradients_but_not_the_first_layers_ratio() -> None:
    """K10: weight over bias gradient is the image whatever is drawn, while the gradients themselves differ."""
    net = build("mlp", TASK, 0, widths=[16], bottleneck=4)
    start = state_of(net)
    batch = Batch(torch.rand(1, *TASK.image_shape, generator=derive(0)), torch.tensor([3]))
    normalised = ((batch.images - TASK.mean[0]) / TASK.std[0]).flatten()
    found = []
    for i in range(3):
        drawn = {DRAW: 3 * torch.randn(1, 4, generator=derive(1, i))}
        tree = gradient(net, State(start.weights, drawn), batch).tree
        weight, bias = tree["net.fc1.weight"], tree["net.fc1.bias"]
        row = bias.abs().argmax()
        assert torch.allclose(weight[row] / bias[row], normalised, atol=1e-4)
        found.append(weight.flatten())
    for i in range(3):
        assert torch.cosine_similarity(found[i], found[i - 1], dim=0) < 0.99


def test_it_is_judged_at_the_mean_of_its_draws() -> None:
    net = build("mlp", TASK, 0, widths=[16], bottleneck=4)
    batch = Batch(torch.rand(20, *TASK.image_shape, generator=derive(0)), torch.arange(20) % 10)
    assert evaluate(net, state_of(net), batch) == evaluate(net, state_of(net), batch)
    loss = gradient(net.eval(), state_of(net), batch).loss.item()
    assert evaluate(net, state_of(net), batch)[0] == pytest.approx(loss, rel=1e-5)


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
