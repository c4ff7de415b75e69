from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from attacks.labels import Head, answers_to_noise, infer_labels, last_linear, unevenness, whole
from attacks.problem import Problem
from fl_sim import models
from fl_sim.core.errors import FlSimError
from fl_sim.core.seeds import derive
from fl_sim.core.trees import add_normal, map_tree, scale
from fl_sim.core.types import Batch, Observation, Protocol, Task
from fl_sim.data.clients import ClientData
from fl_sim.training.local import gradient, state_of
from tests.conftest import TASK, observe

COLOUR = Task(image_shape=(3, 16, 16), classes=10, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
WIDTHS: dict[str, dict[str, Any]] = {"convnet": {"width": 2}, "resnet18": {"width": 2}, "mlp": {"widths": [20]}}
NOBODY = torch.zeros(0, dtype=torch.int64)


def images(task: Task, number: int) -> Tensor:
    return torch.rand(number, *task.image_shape, generator=derive(0, "images"))


def inferred(seen: Observation, model: nn.Module) -> list[int]:
    labels: list[int] = Problem.of(seen, model, derive(0), "cpu").labels.tolist()
    return labels


def head_of(features: Tensor, labels: Tensor, parameters: Tensor, noise: float = 0.0) -> tuple[Head, Tensor]:
    """A last layer's gradient, built of features ``(N, F)`` that are not negative; and the mean answer."""
    inputs = torch.cat([features, torch.ones(len(features), 1)], 1).double()
    answers = (inputs @ parameters.T).softmax(1)
    clean = (answers - one_hot(labels, len(parameters))).T @ inputs / len(labels)
    noisy = clean + noise * torch.randn(clean.shape, generator=derive(5)).double()
    return Head(gradient=noisy, parameters=parameters, biased=True, positive=True), answers.mean(0)


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_one_images_label_is_the_only_negative_entry(name: str) -> None:
    """K12, first half: the sign rule."""
    net = models.build(name, COLOUR, 0, **WIDTHS.get(name, {})).eval()
    for label in (0, 7):
        batch = Batch(images(COLOUR, 1), torch.tensor([label]))
        tree, weights = gradient(net, state_of(net), batch).tree, state_of(net).weights
        head = Head.of(last_linear(net)[0], tree, weights, positive=False)
        assert (head.evidence() < 0).nonzero().flatten().tolist() == [label]
        assert inferred(replace(observe(net, batch), task=COLOUR), net) == [label]


@pytest.mark.parametrize("labels", [[3, 3, 3, 9], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [5] * 12, [1] * 11 + [2, 2, 8]])
def test_counts_are_exact_at_zero_weights(labels: list[int]) -> None:
    """K12, second half; the third and fourth have classes with non-negative evidence, present and absent."""
    net = models.build("softmax", TASK, 0)
    seen = observe(net, Batch(images(TASK, len(labels)), torch.tensor(labels)))
    assert inferred(seen, net) == labels


@pytest.mark.parametrize("noise", [0.0, 1e-3, 1e-2])
@pytest.mark.parametrize("name", ["cnn", "lenet", "mlp"])
def test_a_fresh_model_tells_them_through_noise(name: str, noise: float) -> None:
    task = replace(TASK, image_shape=(1, 12, 12))
    net, labels = models.build(name, task, 0), [1, 1, 1, 4, 4, 6, 7, 9]
    seen = replace(observe(net, Batch(images(task, 8), torch.tensor(labels))), task=task)
    noisy = replace(seen.update, delta=add_normal(seen.update.delta, noise, derive(1)))
    assert inferred(replace(seen, update=noisy), net) == labels


def test_a_trained_model_tells_them_too() -> None:
    """Where the mean answer to noise says little: batches of four digits after 20 steps."""
    data = ClientData(name="digits", clients=1)
    digits, task = data.held(0), data.task()
    net = models.build("mlp", task, 0, widths=[64])
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for step in range(20):
        chosen = torch.randint(0, 1000, (32,), generator=derive(step))
        optimiser.zero_grad()
        cross_entropy(net(digits.images[chosen]), digits.labels[chosen]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    found, by_answer = 0, 0
    for chosen in torch.arange(1000, 1128).view(32, 4):
        batch = Batch(digits.images[chosen], digits.labels[chosen])
        truth, seen = torch.bincount(batch.labels, minlength=10), replace(observe(net, batch), task=task)
        found += inferred(seen, net) == batch.labels.sort().values.tolist()
        head = Head.of("net.head", seen.update.delta, seen.broadcast, positive=True)
        _, answer = answers_to_noise(seen, net, last_linear(net)[1], derive(0))
        by_answer += torch.equal(whole(4 * (answer - head.evidence()), NOBODY, 4), truth)
    assert found >= 24
    assert by_answer <= 6


def test_alike_images_of_a_class_are_counted_whatever_the_model_answers() -> None:
    parameters = 3 * torch.randn(10, 13, generator=derive(0)).double()
    kinds = torch.rand(10, 12, generator=derive(1))
    labels = torch.tensor([0, 2, 2, 2, 5, 5, 8, 8])
    head, answer = head_of(kinds[labels], labels, parameters)
    elsewhere = torch.full((10,), 0.1).double()
    assert head.counts(elsewhere, 8).tolist() == torch.bincount(labels, minlength=10).tolist()
    assert unevenness(head.counts_by_class(elsewhere, 8, torch.unique(labels))) < 1e-4
    assert torch.allclose(8 * (answer - head.evidence()), torch.bincount(labels, minlength=10).double())


def test_a_class_that_the_biases_hide_is_seen_in_the_weights() -> None:
    """Its image is answered rightly, and another one is taken for it."""
    parameters = torch.zeros(3, 5).double()
    parameters[0, :2] = torch.tensor([4.0, 8.0])
    features = torch.tensor([[0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0]])
    head, answer = head_of(features, torch.tensor([0, 1]), parameters)
    assert head.evidence()[0] > 0
    assert head.present(2).tolist() == [0, 1]
    assert head.counts(answer, 2).tolist() == [1, 1, 0]
    assert replace(head, positive=False).present(2).tolist() == [1]


def test_noise_is_measured_and_is_no_evidence() -> None:
    features, labels = torch.rand(4, 400, generator=derive(1)), torch.tensor([1, 1, 2, 3])
    parameters = 0.01 * torch.randn(10, 401, generator=derive(0)).double()
    loud, _ = head_of(features, labels, parameters, noise=10.0)
    assert loud.noise().item() == pytest.approx(10, rel=0.1)
    assert loud.present(4).tolist() == []
    quiet, _ = head_of(features, labels, parameters, noise=1e-3)
    assert quiet.present(4).tolist() == [1, 2, 3]
    assert quiet.present(2).tolist() == [1, 2]


def test_likely_features_hear_a_label_that_the_biases_do_not() -> None:
    features, label = torch.rand(1, 400, generator=derive(1)), torch.tensor([6])
    head, _ = head_of(features, label, torch.zeros(10, 401).double(), noise=3.0)
    assert head.evidence().argmin() != 6
    assert head.evidence(torch.full((400,), 0.5).double()).argmin() == 6
    assert torch.equal(replace(head, positive=False).evidence(features[0].double()), head.evidence())


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("number", [2, 7, 40])
def test_counts_sum_to_the_batch_whatever_the_gradient(number: int, size: float) -> None:
    parameters = torch.randn(10, 13, generator=derive(7)).double()
    for i in range(20):
        gradient_ = size * torch.randn(10, 13, generator=derive(0, i)).double()
        head = Head(gradient=gradient_, parameters=parameters, biased=True, positive=bool(i % 2))
        counts = head.counts(torch.rand(10, generator=derive(1, i)).double().softmax(0), number)
        assert int(counts.sum()) == number
        assert int(counts.min()) >= 0


def test_who_is_there_comes_first_and_the_largest_remainder_next() -> None:
    assert whole(torch.tensor([0.1, 2.4, 0.9]), torch.tensor([0]), 4).tolist() == [1, 2, 1]
    assert whole(torch.tensor([0.1, 0.4, 0.9]), NOBODY, 1).tolist() == [0, 0, 1]


def test_without_a_bias_the_row_sums_tell() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10, bias=False))
    nn.init.normal_(net[1].weight, std=0.1, generator=derive(3))  # type: ignore[arg-type]
    nn.init.normal_(net[3].weight, std=0.1, generator=derive(4))  # type: ignore[arg-type]
    for labels in ([6], [2, 2, 6]):
        seen = observe(net, Batch(images(TASK, len(labels)), torch.tensor(labels)))
        head = Head.of("3", seen.update.delta, seen.broadcast, positive=True)
        assert torch.equal(head.evidence(), seen.update.delta["3.weight"].double().sum(1))
        assert inferred(seen, net) == labels


def test_a_model_without_a_linear_layer_is_refused() -> None:
    with pytest.raises(FlSimError, match="grant labels"):
        last_linear(nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten()))


@pytest.mark.parametrize("disclosed", [True, False], ids=["protocol known", "protocol unknown"])
@pytest.mark.parametrize("labels", [[2], [2, 7], [2, 2, 2, 7]])
def test_a_weight_change_tells_the_label_too(model: nn.Module, labels: list[int], disclosed: bool) -> None:
    protocol = Protocol(mode="fedavg", learning_rate=0.05, local_epochs=3, momentum=0.9)
    seen = observe(model, Batch(images(TASK, len(labels)), torch.tensor(labels)), protocol)
    assert seen.update.kind == "delta"
    assert inferred(seen if disclosed else replace(seen, protocol=None), model) == labels


@pytest.mark.parametrize("factor", [1e-4, 1.0, 1e4])
def test_of_unknown_scale_only_the_direction_counts(model: nn.Module, factor: float) -> None:
    labels = [1, 1, 1, 3, 8, 8]
    seen = observe(model, Batch(images(TASK, 6), torch.tensor(labels)))
    blind = replace(seen, protocol=None, update=replace(seen.update, kind="delta"))
    assert infer_labels(blind, model, scale(seen.update.delta, factor), derive(0)).tolist() == labels


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), -1e30])
def test_nonsense_still_has_as_many_labels_as_images(model: nn.Module, number: int, value: float) -> None:
    seen = observe(model, Batch(images(TASK, number), torch.arange(number)))
    nonsense = map_tree(lambda t: torch.full_like(t, value), seen.update.delta)
    labels = infer_labels(seen, model, nonsense, derive(0))
    assert labels.shape == (number,)
    assert set(labels.tolist()) <= set(range(10))


def test_the_answer_to_noise_is_a_distribution_and_flat_at_zero_weights(seen: Observation, model: nn.Module) -> None:
    features, answer = answers_to_noise(seen, model, last_linear(model)[1], derive(0))
    assert answer.sum().item() == pytest.approx(1, abs=1e-6)
    assert (features >= 0).all()
    flat = models.build("softmax", TASK, 0)
    known = observe(flat, Batch(images(TASK, 1), torch.tensor([1])))
    features, answer = answers_to_noise(known, flat, last_linear(flat)[1], derive(0))
    assert torch.allclose(answer, torch.tensor(0.1).double())
    assert (features < 0).any()
    assert not any(m._forward_pre_hooks for m in (*model.modules(), *flat.modules()))


def test_batch_statistics_are_not_written_to() -> None:
    """Probing the model in train mode must not move the running statistics that were observed."""
    net = models.build("convnet", COLOUR, 0, width=2)
    batch, protocol = Batch(images(COLOUR, 2), torch.tensor([1, 2])), Protocol(batch_size=2, batchnorm="train")
    seen = replace(observe(net, batch, protocol), task=COLOUR)
    infer_labels(seen, net.train(), seen.update.delta, derive(0))
    assert all(torch.equal(seen.buffers[name], b) for name, b in state_of(net).buffers.items())
    assert all(int(b) == 0 for name, b in net.named_buffers() if "num_batches" in name)
