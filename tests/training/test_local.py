"""Local training, held against torch's own autograd, optimiser and batch norm."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fl_sim import models
from fl_sim.core.seeds import derive
from fl_sim.core.trees import scale
from fl_sim.core.types import Batch, Protocol, Task, Tensors
from fl_sim.training.local import (
    Gradient,
    State,
    evaluate,
    gradient,
    local_update,
    minibatches,
    single_threaded,
    state_of,
)

COLOUR = Task(image_shape=(3, 32, 32), classes=10, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
GREY = Task(image_shape=(1, 8, 8), classes=10, mean=(0.3,), std=(0.35,))
SEVERAL = Protocol(mode="fedavg", learning_rate=0.05, local_epochs=3, batch_size=3, momentum=0.9)


def draw(task: Task, number: int) -> Batch:
    return Batch(torch.rand(number, *task.image_shape, generator=derive(0, "images")), torch.arange(number) % 10)


def convnet() -> nn.Module:
    """Batch norm everywhere; its running statistics are made unlike those of any batch."""
    net = models.build("convnet", COLOUR, 0, width=2)
    for name, buffer in net.named_buffers():
        if "running" in name:
            buffer.add_(0.1)
    return net


def largest_difference(left: Tensors, right: Mapping[str, Tensor]) -> float:
    return max((left[name] - right[name].detach()).abs().max().item() for name in left)


@pytest.mark.parametrize("training", [False, True])
def test_the_gradient_is_autograds_on_the_module_itself(training: bool) -> None:
    net, batch = convnet(), draw(COLOUR, 5)
    net.train(training)
    found = gradient(net, state_of(net), batch)
    loss = cross_entropy(net(batch.images), batch.labels)
    expected = dict(zip(found.tree, torch.autograd.grad(loss, list(net.parameters())), strict=True))
    assert list(found.tree) == [name for name, _ in net.named_parameters()]
    assert largest_difference(found.tree, expected) < 1e-6
    assert found.loss.item() == pytest.approx(loss.item(), rel=1e-6)


def test_the_gradient_is_taken_at_the_state_not_at_the_models_weights(model: nn.Module, batch: Batch) -> None:
    start = state_of(model)
    half = gradient(model, State(scale(start.weights, 0.5), start.buffers), batch)
    model.load_state_dict(scale(start.weights, 0.5))
    assert largest_difference(half.tree, gradient(model, state_of(model), batch).tree) == 0


def test_one_hot_labels_are_the_classes_they_stand_for(model: nn.Module) -> None:
    batch = draw(GREY, 4)
    soft = nn.functional.one_hot(batch.labels, 10).float()
    hard = gradient(model, state_of(model), batch)
    assert largest_difference(gradient(model, state_of(model), Batch(batch.images, soft)).tree, hard.tree) < 1e-7


def sgd(net: nn.Module, batch: Batch, protocol: Protocol, order: torch.Generator) -> Tensors:
    """The same protocol by torch.optim, on a copy: the weights it ends with."""
    net = copy.deepcopy(net)
    net.train(protocol.batchnorm == "train")
    optimiser = torch.optim.SGD(net.parameters(), lr=protocol.learning_rate, momentum=protocol.momentum)
    for _ in range(protocol.local_epochs):
        for chosen in torch.split(torch.randperm(len(batch.labels), generator=order), protocol.batch_size):
            optimiser.zero_grad()
            cross_entropy(net(batch.images[chosen]), batch.labels[chosen]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return net.state_dict()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_fedavg_is_torchs_sgd(model: nn.Module, momentum: float) -> None:
    batch, protocol = draw(GREY, 7), replace(SEVERAL, momentum=momentum)
    start = state_of(model)
    update, _ = local_update(model, start, batch, protocol, derive(4))
    after = sgd(model, batch, protocol, derive(4))
    assert (update.kind, update.num_examples) == ("delta", 7)
    assert largest_difference(update.delta, {k: after[k] - w for k, w in start.weights.items()}) < 1e-6
    assert max(t.abs().max().item() for t in update.delta.values()) > 1e-2


def test_the_loss_told_is_that_before_any_step(model: nn.Module) -> None:
    batch = draw(GREY, 7)
    whole = replace(SEVERAL, batch_size=7)
    _, loss = local_update(model, state_of(model), batch, whole, derive(4))
    assert loss == pytest.approx(cross_entropy(model(batch.images), batch.labels).item(), rel=1e-5)


def test_fedsgd_sends_the_gradient_of_the_whole_batch(model: nn.Module) -> None:
    batch = draw(GREY, 7)
    update, loss = local_update(model, state_of(model), batch, Protocol(batch_size=7), derive(4))
    expected = gradient(model, state_of(model), batch)
    assert (update.kind, update.num_examples, update.buffers) == ("gradient", 7, {})
    assert largest_difference(update.delta, expected.tree) == 0
    assert loss == expected.loss.item()


def test_a_defense_may_replace_the_gradient(model: nn.Module) -> None:
    def halved(net: nn.Module, state: State, batch: Batch) -> Gradient:
        plain = gradient(net, state, batch)
        return Gradient(scale(plain.tree, 0.5), plain.loss, plain.buffers)

    batch, once = draw(GREY, 3), Protocol(mode="fedavg", batch_size=3)
    plain, _ = local_update(model, state_of(model), batch, once, derive(0))
    half, _ = local_update(model, state_of(model), batch, once, derive(0), rule=halved)
    assert largest_difference(half.delta, scale(plain.delta, 0.5)) < 1e-7


def test_every_epoch_visits_every_image_once_in_a_new_order() -> None:
    parts = list(minibatches(draw(GREY, 7), SEVERAL, derive(0)))
    assert [len(p.labels) for p in parts] == [3, 3, 1] * 3
    epochs = [torch.cat([p.labels for p in parts[i : i + 3]]).tolist() for i in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("mode", ["fedsgd", "fedavg"])
class TestBatchNorm:
    def test_eval_mode_leaves_the_statistics_alone(self, mode: Literal["fedsgd", "fedavg"]) -> None:
        net = convnet()
        update, _ = local_update(net, state_of(net), draw(COLOUR, 6), Protocol(mode=mode, batch_size=3), derive(1))
        assert update.buffers == {}

    def test_train_mode_sends_the_statistics_that_the_module_would_have(
        self, mode: Literal["fedsgd", "fedavg"]
    ) -> None:
        net, batch = convnet(), draw(COLOUR, 6)
        protocol = Protocol(mode=mode, batch_size=3 if mode == "fedavg" else 6, batchnorm="train")
        update, _ = local_update(net, state_of(net), batch, protocol, derive(1))
        expected = sgd(net, batch, protocol, derive(1))
        assert sorted(update.buffers) == sorted(name for name in expected if "running" in name)
        assert largest_difference(update.buffers, expected) < 1e-5
        assert largest_difference(update.buffers, net.state_dict()) > 1e-2

    @pytest.mark.parametrize("batchnorm", ["eval", "train"])
    def test_the_model_and_the_start_are_never_written_to(
        self, mode: Literal["fedsgd", "fedavg"], batchnorm: Literal["eval", "train"]
    ) -> None:
        net = convnet()
        start = state_of(net)
        before = copy.deepcopy((net.state_dict(), start))
        local_update(net, start, draw(COLOUR, 6), Protocol(mode=mode, batch_size=3, batchnorm=batchnorm), derive(1))
        evaluate(net, start, draw(COLOUR, 6))
        assert all(torch.equal(before[0][name], t) for name, t in net.state_dict().items())
        assert largest_difference(start.weights, before[1].weights) == 0
        assert largest_difference(start.buffers, before[1].buffers) == 0


def test_a_state_is_a_copy_without_counters_and_constants() -> None:
    net = convnet()
    state = state_of(net)
    assert all(name.endswith(("running_mean", "running_var")) for name in state.buffers)
    next(iter(state.weights.values())).zero_()
    assert next(net.parameters()).abs().max() > 0


def test_second_derivatives_match_finite_differences() -> None:
    net = models.build("lenet", GREY, 0).double()
    start, batch = state_of(net), draw(GREY, 2)
    directions = {k: torch.randn(w.shape, generator=derive(1), dtype=w.dtype) for k, w in start.weights.items()}

    def along(images: Tensor, labels: Tensor, last: Tensor) -> Tensor:
        state = State({**start.weights, "net.head.bias": last}, start.buffers)
        tree = gradient(net, state, Batch(images, labels), create_graph=True).tree
        return torch.stack([(tree[k] * d).sum() for k, d in directions.items()]).sum()

    labels = torch.rand(2, 10, generator=derive(2), dtype=torch.float64)
    point = (batch.images.double(), labels, start.weights["net.head.bias"])
    assert torch.autograd.gradcheck(along, [p.requires_grad_() for p in point])


def test_without_create_graph_nothing_is_kept_for_a_second_derivative(model: nn.Module, batch: Batch) -> None:
    images = batch.images.clone().requires_grad_()
    found = gradient(model, state_of(model), Batch(images, batch.labels))
    assert not any(t.requires_grad for t in found.tree.values())


def test_evaluation_counts_right_answers_in_eval_mode() -> None:
    net, batch = convnet(), draw(COLOUR, 300)
    loss, accuracy = evaluate(net.train(), state_of(net), batch)
    with torch.no_grad():
        logits = net.eval()(batch.images)
    assert loss == pytest.approx(cross_entropy(logits, batch.labels).item(), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(1) == batch.labels).float().mean().item())


def test_one_thread_inside_and_as_many_as_before_outside() -> None:
    torch.set_num_threads(2)
    with single_threaded():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(KeyError, match="boom"), single_threaded():
        raise KeyError("boom")
    assert torch.get_num_threads() == 2
