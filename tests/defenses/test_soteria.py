"""Soteria's mask against the released code's loop, and specs/bayes.md K9."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attacks.likelihoods import Cosine
from attacks.likelihoods.distances import Layers
from attacks.problem import Guess, Problem
from defenses.soteria import Soteria, effective_rate
from fl_sim import models
from fl_sim.core.errors import ConfigError, FlSimError
from fl_sim.core.seeds import derive
from fl_sim.core.trees import global_norm
from fl_sim.core.types import Batch, Task, Tensors
from fl_sim.training.local import gradient, state_of
from tests.conftest import TASK, observe

COLOURED = Task(image_shape=(3, 10, 10), classes=10, mean=(0.5, 0.4, 0.3), std=(0.25, 0.25, 0.25))
LAYER, WEIGHT = "net.fc2", "net.fc2.weight"
WIDTH = 60  # of the features that the layer sees


def images(count: int, task: Task = TASK) -> Batch:
    drawn = torch.rand(count, *task.image_shape, generator=derive(0, "images"))
    return Batch(drawn, torch.arange(count))


@pytest.fixture
def model() -> nn.Module:
    return models.build("mlp", TASK, 0, widths=[WIDTH, 40]).eval()


def sent(defense: Soteria, model: nn.Module, batch: Batch) -> Tensors:
    return defense.gradient(model, *state_of(model), batch, derive(0))


def clean(model: nn.Module, batch: Batch) -> Tensors:
    return gradient(model, state_of(model), batch).tree


def looped(features: Tensor, pixels: Tensor) -> Tensor:
    """One backward pass a feature, as the released code does it."""
    columns = []
    for f in range(features.shape[1]):
        target = torch.zeros_like(features)
        target[:, f] = 1
        (slope,) = torch.autograd.grad(features, pixels, target, retain_graph=True)
        columns.append(slope.flatten(1).norm(dim=1) / (features.detach()[:, f] + 0.1))
    return torch.stack(columns, 1).sum(0)


NETWORKS: Mapping[str, dict[str, object]] = {
    "softmax": {},
    "mlp": {"widths": [30, 20]},
    "lenet": {},
    "cnn": {},
    "convnet": {"width": 4},
    "resnet18": {"width": 4},
}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", NETWORKS)
def test_one_jacobian_is_as_many_backward_passes(name: str, training: bool) -> None:
    model = models.build(name, COLOURED, 0, **NETWORKS[name]).train(training)
    net, batch = model.get_submodule("net"), images(2, COLOURED)
    assert isinstance(net, nn.Sequential)
    found = Soteria(rate=0.5, chunk=50).scores(model, state_of(model), batch)
    pixels = batch.images.clone().requires_grad_()
    expected = looped(net[:-1](model.get_submodule("normalise")(pixels)), pixels)
    assert torch.allclose(found.float(), expected, rtol=1e-4, atol=1e-6)
    assert expected.abs().max() > 0


def test_zeroes_the_columns_of_small_score_and_nothing_else(model: nn.Module) -> None:
    batch, defense = images(3), Soteria(rate=0.7, layer=LAYER)
    scores = defense.scores(model, state_of(model), batch).numpy()
    zeroed = torch.from_numpy(scores < np.percentile(scores, 70))
    before, after = clean(model, batch), sent(defense, model, batch)
    assert int(zeroed.sum()) == 42  # of 60
    assert list(after) == list(before)
    assert torch.equal(after[WEIGHT], torch.where(zeroed, 0.0, before[WEIGHT]))
    assert all(torch.equal(after[name], before[name]) for name in before if name != WEIGHT)


def test_mask_does_not_depend_on_the_chunk(model: nn.Module) -> None:
    masks = [Soteria(rate=0.6, layer=LAYER, chunk=c).mask(model, state_of(model), images(2)) for c in (1, 7, 60, 999)]
    assert all(torch.equal(mask, masks[0]) for mask in masks)


def test_rate_zero_sends_the_plain_gradient(model: nn.Module) -> None:
    before, after = clean(model, images(2)), sent(Soteria(rate=0, layer=LAYER), model, images(2))
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(("dead", "withheld"), [(0.5, 0.8), (0.85, 0.0)])
def test_dead_features_are_withheld_first_and_may_switch_it_off(model: nn.Module, dead: float, withheld: float) -> None:
    biases, count = model.get_parameter("net.fc1.bias"), round(dead * WIDTH)
    biases.data = torch.cat([torch.full((count,), -100.0), torch.full((WIDTH - count,), 100.0)])
    batch, defense = images(1), Soteria(rate=0.8, layer=LAYER)
    mask = defense.mask(model, state_of(model), batch)
    assert mask.logical_not().double().mean().item() == pytest.approx(withheld)
    changed = effective_rate(clean(model, batch)[WEIGHT], sent(defense, model, batch)[WEIGHT])
    assert changed == pytest.approx(max(withheld - dead, 0))  # a dead feature's column is zero anyway


def test_k9_dropping_the_layer_undoes_it(model: nn.Module) -> None:
    batch = images(1)
    seen = observe(model, batch)
    delta = sent(Soteria(rate=0.8, layer=LAYER), model, batch)
    problem = Problem.of(replace(seen, update=replace(seen.update, delta=delta)), model, derive(0), "cpu")
    truth = problem.gradients(Guess(batch.images[None], batch.labels[None]))
    naive = Cosine().bind(problem).cost(truth).item()
    adaptive = Cosine(layers=Layers(dropped=(WEIGHT,))).bind(problem).cost(truth).item()
    assert naive == pytest.approx(1 - (global_norm(delta) / global_norm(seen.update.delta)).item(), abs=1e-6)
    assert naive > 0.01
    assert adaptive == pytest.approx(0, abs=1e-6)


def test_k9_the_layer_before_still_gives_the_image(model: nn.Module) -> None:
    batch = images(1)
    delta = sent(Soteria(rate=0.8, layer=LAYER), model, batch)
    row = delta["net.fc1.bias"].abs().argmax()
    normalised = delta["net.fc1.weight"][row] / delta["net.fc1.bias"][row]
    pixels = normalised * TASK.std[0] + TASK.mean[0]
    assert torch.allclose(pixels, batch.images.flatten(), atol=1e-5)


def test_without_a_name_it_is_the_last_layer(model: nn.Module) -> None:
    assert Soteria(rate=0.5).layer_of(model) == "net.head"
    assert Soteria(rate=0.5, layer=LAYER).layer_of(model) == LAYER


def test_a_wrong_name_is_answered_with_the_right_ones(model: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"net\.fc1, net\.fc2, net\.head, got 'net\.fc3'; did you mean"):
        sent(Soteria(rate=0.5, layer="net.fc3"), model, images(1))
    with pytest.raises(ConfigError, match="has none"):
        Soteria(rate=0.5).layer_of(nn.Sequential(nn.Conv2d(1, 1, 3)))


def test_refuses_a_layer_that_does_not_see_one_row_an_image() -> None:
    tokens = nn.Sequential(nn.Flatten(2), nn.Linear(64, 3), nn.Flatten(), nn.Linear(3, 10))
    with pytest.raises(FlSimError, match=r"\(2, n\).*\[\(2, 1, 64\)\]"):
        sent(Soteria(rate=0.5, layer="1"), tokens, images(2))


@pytest.mark.parametrize("wrong", [{"rate": 80}, {"rate": -0.1}, {"rate": 0.5, "chunk": 0}, {}])
def test_refuses_impossible_options(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Soteria(**wrong)  # type: ignore[arg-type]


def test_leaves_model_and_batch_as_they_were(model: nn.Module) -> None:
    batch, before = images(2), {name: t.clone() for name, t in model.state_dict().items()}
    sent(Soteria(rate=0.5, layer=LAYER), model, batch)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert not batch.images.requires_grad
    assert not model.get_submodule(LAYER)._forward_pre_hooks
