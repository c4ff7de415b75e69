"""Gradients of single examples: all at once, against one at a time."""

import pytest
import torch
from torch import nn

from fl_sim import models
from fl_sim.core.seeds import derive
from fl_sim.core.stochastic import draw_noise
from fl_sim.core.types import Batch, Protocol, Task, Tensors
from fl_sim.training.local import Gradient, State, example_gradients, gradient, local_update, state_of
from tests.conftest import DRAW, precoded

GREY = Task(image_shape=(1, 8, 8), classes=10, mean=(0.3,), std=(0.35,))
COLOUR = Task(image_shape=(3, 32, 32), classes=10, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def draw(task: Task, number: int) -> Batch:
    return Batch(torch.rand(number, *task.image_shape, generator=derive(0, "images")), torch.arange(number) % 10)


def one_by_one(net: nn.Module, state: State, batch: Batch, drawn: Tensors) -> list[Tensors]:
    return [
        gradient(
            net,
            State(state.weights, {**state.buffers, **{k: z[i, None] for k, z in drawn.items()}}),
            Batch(batch.images[i, None], batch.labels[i, None]),
        ).tree
        for i in range(len(batch.labels))
    ]


def largest_difference(found: Tensors, expected: list[Tensors]) -> float:
    return max((found[k] - torch.stack([tree[k] for tree in expected])).abs().max().item() for k in expected[0])


@pytest.mark.parametrize("name", ["mlp", "lenet", "cnn"])
@pytest.mark.parametrize("number", [1, 4])
def test_each_example_has_the_gradient_it_has_alone(name: str, number: int) -> None:
    net = models.build(name, GREY, 0)
    batch, state = draw(GREY, number), state_of(net)
    found = example_gradients(net, state, batch)
    assert list(found) == [k for k, _ in net.named_parameters()]
    assert largest_difference(found, one_by_one(net, state, batch, {})) < 1e-6
    mean = gradient(net, state, batch).tree
    assert max((found[k].mean(0) - g).abs().max().item() for k, g in mean.items()) < 1e-6


def test_running_statistics_are_used_and_shared() -> None:
    net = models.build("convnet", COLOUR, 0, width=2).eval()
    state = state_of(net)
    moved = State(state.weights, {k: b + 0.1 for k, b in state.buffers.items()})
    batch = draw(COLOUR, 3)
    found = example_gradients(net, moved, batch)
    assert largest_difference(found, one_by_one(net, moved, batch, {})) < 1e-5
    assert largest_difference(found, one_by_one(net, state, batch, {})) > 1e-3


@pytest.mark.parametrize("number", [1, 3])
def test_each_example_has_its_own_draw(number: int) -> None:
    net = precoded(16, 5, GREY)
    batch, state, drawn = draw(GREY, number), state_of(net), draw_noise(net, number, derive(1))
    found = example_gradients(net, State(state.weights, {**state.buffers, **drawn}), batch)
    assert largest_difference(found, one_by_one(net, state, batch, drawn)) < 1e-6
    at_mean = draw_noise(net, number, derive(1))
    assert largest_difference(found, one_by_one(net, state, batch, {k: 0 * z for k, z in at_mean.items()})) > 1e-3
    whole = gradient(net, State(state.weights, {**state.buffers, **drawn}), batch).tree
    assert max((found[k].mean(0) - g).abs().max().item() for k, g in whole.items()) < 1e-6


@pytest.mark.parametrize(
    "protocol", [Protocol(batch_size=4), Protocol(mode="fedavg", batch_size=2, local_epochs=2)], ids=lambda p: p.mode
)
def test_a_client_draws_anew_for_each_image_and_step_and_sends_none_of_it(protocol: Protocol) -> None:
    net, batch = precoded(16, 5, GREY), draw(GREY, 4)
    used: list[Tensors] = []

    def spying(model: nn.Module, state: State, part: Batch) -> Gradient:
        used.append({k: b for k, b in state.buffers.items() if k.endswith(".draw")})
        return gradient(model, state, part)

    def run(seed: int) -> Tensors:
        return local_update(net, state_of(net), batch, protocol, derive(seed), rule=spying)[0].delta

    first, again, other = run(0), run(0), run(1)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)
    rows = torch.cat([z[DRAW] for z in used[: len(used) // 3]])
    assert rows.shape == (4 if protocol.mode == "fedsgd" else 8, 5)
    assert len(torch.unique(rows, dim=0)) == len(rows)
    assert state_of(net).buffers == {}
    assert torch.equal(net.get_buffer(DRAW), torch.zeros(1, 5))
