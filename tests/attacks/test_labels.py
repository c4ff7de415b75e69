from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attacks.labels import infer_labels, label_counts, last_layer_evidence, mean_answer
from attacks.problem import Problem
from fl_sim import models
from fl_sim.core.errors import FlSimError
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Observation, Protocol, Task
from fl_sim.training.local import gradient, state_of
from tests.conftest import TASK, observe

COLOUR = Task(image_shape=(3, 16, 16), classes=10, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
WIDTHS: dict[str, dict[str, Any]] = {"convnet": {"width": 2}, "resnet18": {"width": 2}, "mlp": {"widths": [20]}}


def images(task: Task, number: int) -> Tensor:
    return torch.rand(number, *task.image_shape, generator=derive(0, "images"))


def inferred(seen: Observation, model: nn.Module) -> list[int]:
    labels: list[int] = Problem.of(seen, model, derive(0), "cpu").labels.tolist()
    return labels


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_one_images_label_is_the_only_negative_entry(name: str) -> None:
    """K12, first half: the sign rule."""
    net = models.build(name, COLOUR, 0, **WIDTHS.get(name, {})).eval()
    for label in (0, 7):
        tree = gradient(net, state_of(net), Batch(images(COLOUR, 1), torch.tensor([label]))).tree
        evidence = last_layer_evidence(net, tree)
        assert (evidence < 0).nonzero().flatten().tolist() == [label]


@pytest.mark.parametrize("labels", [[3, 3, 3, 9], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [5] * 12, [1] * 11 + [2, 2, 8]])
def test_counts_are_exact_at_zero_weights(labels: list[int]) -> None:
    """K12, second half; the third and fourth have classes with non-negative evidence, present and absent."""
    net = models.build("softmax", TASK, 0)
    seen = observe(net, Batch(images(TASK, len(labels)), torch.tensor(labels)))
    assert inferred(seen, net) == labels


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("number", [2, 7, 40])
def test_counts_sum_to_the_batch_whatever_the_evidence(number: int, scale: float) -> None:
    for i in range(20):
        evidence = scale * torch.randn(10, generator=derive(0, i))
        counts = label_counts(evidence, torch.rand(10, generator=derive(1, i)).softmax(0), number)
        assert int(counts.sum()) == number
        assert int(counts.min()) >= 0


def test_a_class_with_negative_evidence_is_always_there() -> None:
    evidence = torch.tensor([-0.01, 0.5, -0.9, 0.41])
    assert label_counts(evidence, torch.full((4,), 0.25), 3).tolist() == [1, 0, 2, 0]


def test_of_too_many_negative_entries_the_largest_are_taken() -> None:
    evidence = torch.tensor([-0.1, -0.4, -0.3, 0.8])
    assert label_counts(evidence, torch.full((4,), 0.25), 2).tolist() == [0, 1, 1, 0]


def test_without_a_bias_the_row_sums_tell() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10, bias=False))
    nn.init.normal_(net[1].weight, generator=derive(3))  # type: ignore[arg-type]
    nn.init.normal_(net[3].weight, generator=derive(4))  # type: ignore[arg-type]
    seen = observe(net, Batch(images(TASK, 1), torch.tensor([6])))
    evidence = last_layer_evidence(net, seen.update.delta)
    assert torch.equal(evidence, seen.update.delta["3.weight"].sum(1))
    assert inferred(seen, net) == [6]


def test_a_model_without_a_linear_layer_is_refused() -> None:
    with pytest.raises(FlSimError, match="grant labels"):
        last_layer_evidence(nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten()), {})


@pytest.mark.parametrize("disclosed", [True, False], ids=["protocol known", "protocol unknown"])
@pytest.mark.parametrize("labels", [[2], [2, 7]])
def test_a_weight_change_tells_the_label_too(model: nn.Module, labels: list[int], disclosed: bool) -> None:
    protocol = Protocol(mode="fedavg", learning_rate=0.05, local_epochs=3, momentum=0.9)
    seen = observe(model, Batch(images(TASK, len(labels)), torch.tensor(labels)), protocol)
    assert seen.update.kind == "delta"
    assert inferred(seen if disclosed else replace(seen, protocol=None), model) == labels


def test_the_mean_answer_is_a_distribution_and_flat_at_zero_weights(seen: Observation, model: nn.Module) -> None:
    answer = mean_answer(seen, model, derive(0))
    assert answer.sum().item() == pytest.approx(1, abs=1e-6)
    flat = models.build("softmax", TASK, 0)
    known = observe(flat, Batch(images(TASK, 1), torch.tensor([1])))
    assert torch.allclose(mean_answer(known, flat, derive(0)), torch.tensor(0.1))


def test_batch_statistics_are_not_written_to() -> None:
    """Probing the model in train mode must not move the running statistics that were observed."""
    net = models.build("convnet", COLOUR, 0, width=2)
    batch, protocol = Batch(images(COLOUR, 2), torch.tensor([1, 2])), Protocol(batch_size=2, batchnorm="train")
    seen = replace(observe(net, batch, protocol), task=COLOUR)
    infer_labels(seen, net.train(), seen.update.delta, derive(0))
    assert all(torch.equal(seen.buffers[name], b) for name, b in state_of(net).buffers.items())
    assert all(int(b) == 0 for name, b in net.named_buffers() if "num_batches" in name)
