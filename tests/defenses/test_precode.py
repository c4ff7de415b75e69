"""PRECODE against its formulas, in every model, and as a client and an attack meet it."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.func import functional_call
from torch.nn.functional import cross_entropy, linear, softplus

from defenses.precode import Bottleneck, Precode
from fl_sim import models
from fl_sim.core.errors import ConfigError
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Protocol, Task
from fl_sim.training.local import State, evaluate, gradient, local_update, state_of
from tests.conftest import DRAW, TASK, precoded

COLOURED = Task(image_shape=(3, 32, 32), classes=10, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


def coloured(number: int) -> Batch:
    return Batch(torch.rand(number, *COLOURED.image_shape, generator=derive(0)), torch.arange(number))


@pytest.mark.parametrize("number", [1, 6])
def test_the_bottleneck_is_mean_plus_softplus_times_draw_and_back(number: int) -> None:
    torch.manual_seed(0)
    module, features = Bottleneck(7, 3, kl=0.0), torch.randn(6, 7, generator=derive(0))
    drawn = torch.randn(number, 3, generator=derive(1))
    found = functional_call(module, {"code.noise.draw": drawn}, (features,))
    coded = linear(features, module.encoder.weight, module.encoder.bias)
    z = coded[:, :3] + softplus(coded[:, 3:]) * drawn
    assert torch.allclose(found, linear(z, module.decoder.weight, module.decoder.bias), atol=1e-6)
    without = linear(coded[:, :3], module.decoder.weight, module.decoder.bias)
    assert torch.allclose(module(features), without, atol=1e-6)


def test_its_price_is_the_divergence_in_bits() -> None:
    coded = 3 * torch.randn(5, 8, generator=derive(0))
    laws = Normal(coded[:, :4], softplus(coded[:, 4:]))
    expected = 0.2 * kl_divergence(laws, Normal(0.0, 1.0)).sum(1) / math.log(2)
    assert torch.allclose(Bottleneck(7, 4, kl=0.2).code.price(coded), expected, rtol=1e-5)
    assert bool(Bottleneck(7, 4, kl=0.2).code.price(coded.fill_(-500)).isfinite().all())


@pytest.mark.parametrize("kl", [0.0, 0.3])
def test_a_client_minimises_cross_entropy_and_the_price(kl: float) -> None:
    net = Precode(width=4, kl=kl).wrap(models.build("mlp", TASK, 0, widths=[16]), derive(0))
    batch = Batch(torch.rand(3, *TASK.image_shape, generator=derive(0)), torch.tensor([1, 2, 3]))
    state, before = state_of(net), nn.Sequential(*list(net.get_submodule("net").children())[:-2])
    coded = net.get_submodule("net.bottleneck.encoder")(before((batch.images - TASK.mean[0]) / TASK.std[0]))
    laws = Normal(coded[:, :4], softplus(coded[:, 4:]))
    bits = kl_divergence(laws, Normal(0.0, 1.0)).sum(1).mean() / math.log(2)
    whole = cross_entropy(net(batch.images), batch.labels) + kl * bits
    expected = torch.autograd.grad(whole, list(net.parameters()), allow_unused=True)
    found = gradient(net, state, batch)
    assert found.loss.item() == pytest.approx(whole.item(), rel=1e-5)
    for got, wanted in zip(found.tree.values(), expected, strict=True):
        assert torch.allclose(got, torch.zeros_like(got) if wanted is None else wanted, atol=1e-6)


@pytest.mark.parametrize("name", models.MODELS)
def test_it_comes_before_the_last_layer_of_every_model(name: str) -> None:
    plain = models.build(name, COLOURED, 0)
    net = Precode(width=4).wrap(plain, derive(0))
    own, added = dict(plain.named_parameters()), [n for n, _ in net.named_parameters() if "bottleneck" in n]
    assert [n for n, _ in net.named_parameters()][-6:] == [*added, "net.head.weight", "net.head.bias"]
    assert all(torch.equal(p, own[n]) for n, p in net.named_parameters() if n in own)
    assert len(added) == 4
    batch = coloured(2)
    found, _ = local_update(net, state_of(net), batch, Protocol(batch_size=2, batchnorm="train"), derive(1))
    assert list(found.delta) == [n for n, _ in net.named_parameters()]
    assert tuple(net.eval()(batch.images).shape) == (2, 10)


@pytest.mark.parametrize(("layer", "rest"), [("net.fc2", ["fc2", "relu2", "head"]), ("", ["head"])])
def test_it_comes_before_the_layer_named(layer: str, rest: list[str]) -> None:
    net = (
        Precode(width=4, layer=layer).wrap(models.build("mlp", TASK, 0, widths=[12, 9]), derive(0)).get_submodule("net")
    )
    names = [name for name, _ in net.named_children()]
    assert names[names.index("bottleneck") + 1 :] == rest


class Own(nn.Module):
    """No ``Sequential``, and words instead of rows where ``words``."""

    def __init__(self, *, words: bool = False) -> None:
        super().__init__()
        self.first, self.last, self.words = nn.Linear(64, 6), nn.Linear(6, 10), words

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.first(images.flatten(1)).relu()
        out: torch.Tensor = self.last(features[:, None].expand(-1, 3, -1) if self.words else features)
        return out.mean(1) if self.words else out


def test_a_model_of_ones_own_can_have_it() -> None:
    net, images = Precode(width=4).wrap(Own(), derive(0)), torch.rand(2, 1, 8, 8)
    assert isinstance(net, Own)
    assert [n for n, _ in net.named_parameters()][2:] == [
        *(f"last.bottleneck.{part}.{kind}" for part in ("encoder", "decoder") for kind in ("weight", "bias")),
        *(f"last.layer.{kind}" for kind in ("weight", "bias")),
    ]
    drawn = {"last.bottleneck.code.noise.draw": torch.ones(2, 4)}
    assert not torch.equal(net(images), functional_call(net, drawn, (images,)))


def test_refuses_what_it_cannot_sit_in() -> None:
    net = models.build("mlp", TASK, 0, widths=[8])
    with pytest.raises(ConfigError, match="list precode once"):
        Precode().wrap(Precode().wrap(net, derive(0)), derive(1))
    with pytest.raises(ConfigError, match=r"net\.fc1, net\.head, got 'net\.fc9'"):
        Precode(layer="net.fc9").wrap(net, derive(0))
    with pytest.raises(ConfigError, match=r"has none"):
        Precode().wrap(nn.Sequential(nn.Flatten()), derive(0))
    with pytest.raises(ConfigError, match=r"one row an image, got \(2, 3, 6\)"):
        Precode().wrap(Own(words=True), derive(0))(torch.rand(2, 1, 8, 8))


def test_what_is_drawn_is_neither_state_nor_weight() -> None:
    net = precoded(12, 4)
    assert DRAW in dict(net.named_buffers())
    assert DRAW not in net.state_dict()
    assert state_of(net).buffers == {}


def test_a_draw_changes_gradients_but_not_the_first_layers_ratio() -> None:
    """K10: weight over bias gradient is the image whatever is drawn, while the gradients themselves differ."""
    net = precoded(16, 4)
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


def test_it_is_judged_at_the_mean_of_its_draws_and_by_cross_entropy_alone() -> None:
    net = precoded(16, 4)
    batch = Batch(torch.rand(20, *TASK.image_shape, generator=derive(0)), torch.arange(20) % 10)
    assert evaluate(net, state_of(net), batch) == evaluate(net, state_of(net), batch)
    plain = cross_entropy(net.eval()(batch.images), batch.labels).item()
    assert evaluate(net, state_of(net), batch)[0] == pytest.approx(plain, rel=1e-5)
