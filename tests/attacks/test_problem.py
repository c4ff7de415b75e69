from dataclasses import replace

import pytest
import torch
from torch import nn

from attacks.problem import Guess, Problem, gradient_scale
from fl_sim import models
from fl_sim.core.knowledge import Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.stochastic import draw_noise
from fl_sim.core.trees import flat, subtract
from fl_sim.core.types import Batch, Observation, Protocol, Tensors
from fl_sim.training.local import gradient, state_of
from tests.conftest import DRAW, TASK, observe, precoded


def largest_difference(left: Tensors, right: Tensors) -> float:
    return flat(subtract(left, right)).abs().max().item()


def constant_descent(protocol: Protocol, steps: int) -> float:
    """How far torch's SGD moves a weight whose gradient is always 1."""
    weight = nn.Parameter(torch.zeros((), dtype=torch.float64))
    optimiser = torch.optim.SGD([weight], lr=protocol.learning_rate, momentum=protocol.momentum)
    for _ in range(steps):
        weight.grad = torch.ones_like(weight)
        optimiser.step()
    return weight.item()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(("images", "epochs", "batch_size", "steps"), [(1, 1, 1, 1), (1, 5, 1, 5), (7, 2, 3, 6)])
def test_a_weight_change_is_scaled_as_far_as_sgd_would_go(
    seen: Observation, images: int, epochs: int, batch_size: int, steps: int, momentum: float
) -> None:
    protocol = Protocol(mode="fedavg", learning_rate=0.3, local_epochs=epochs, batch_size=batch_size, momentum=momentum)
    change = replace(seen, update=replace(seen.update, kind="delta", num_examples=images), protocol=protocol)
    assert gradient_scale(change) == pytest.approx(constant_descent(protocol, steps))


def test_an_aggregate_went_as_far_as_each_of_its_members(seen: Observation) -> None:
    protocol = Protocol(mode="fedavg", local_epochs=2, batch_size=4)
    one = replace(seen, update=replace(seen.update, kind="delta", num_examples=8), protocol=protocol)
    four = replace(one, update=replace(one.update, num_examples=32), members=(0, 1, 2, 3))
    assert gradient_scale(four) == gradient_scale(one)


def test_a_gradient_is_not_scaled_even_when_the_protocol_is_unknown(seen: Observation) -> None:
    assert gradient_scale(seen) == gradient_scale(replace(seen, protocol=None)) == 1


def test_a_weight_change_of_an_unknown_protocol_has_no_scale(model: nn.Module, batch: Batch) -> None:
    seen = replace(observe(model, batch, Protocol(mode="fedavg")), protocol=None)
    problem = Problem.of(seen, model, derive(0), "cpu")
    assert gradient_scale(seen) is None
    assert not problem.scale_known
    cosine = torch.cosine_similarity(flat(problem.target), flat(gradient(model, state_of(model), batch).tree), dim=0)
    assert cosine.item() == pytest.approx(1, abs=1e-5)  # the direction is right, sign included


@pytest.mark.parametrize("mode", ["fedsgd", "fedavg"])
def test_one_steps_target_is_the_clients_gradient_and_back(model: nn.Module, batch: Batch, mode: str) -> None:
    seen = observe(model, batch, Protocol(mode=mode, learning_rate=0.3, momentum=0.9))  # type: ignore[arg-type]
    problem = Problem.of(seen, model, derive(0), "cpu")
    assert largest_difference(problem.target, gradient(model, state_of(model), batch).tree) < 1e-6
    assert largest_difference(problem.as_update(problem.target), seen.update.delta) < 1e-7


def test_gradients_are_taken_at_the_broadcast_weights_trial_by_trial(seen: Observation, batch: Batch) -> None:
    other = models.build("mlp", TASK, 99, widths=[32])  # only its architecture counts
    problem = Problem.of(seen, other, derive(0), "cpu")
    images = torch.stack([torch.zeros_like(batch.images), batch.images])
    found = problem.gradients(Guess(images, batch.labels.expand(2, -1)))
    assert largest_difference({k: g[1] for k, g in found.items()}, seen.update.delta) < 1e-6
    assert largest_difference({k: g[0] for k, g in found.items()}, seen.update.delta) > 1e-3


def several(trials: int, images: int) -> Guess:
    """Of a model that draws; labels are weights of classes."""
    pixels = torch.rand(trials, images, *TASK.image_shape, generator=derive(0, "pixels"))
    weights = torch.rand(trials, images, 10, generator=derive(0, "labels")).softmax(-1)
    return Guess(pixels, weights, {DRAW: torch.randn(trials, images, 4, generator=derive(0, "draw"))})


@pytest.mark.parametrize("drawn", [True, False], ids=["draws guessed", "draws at their mean"])
def test_gradients_of_trials_and_of_examples_are_those_of_a_loop(drawn: bool) -> None:
    net, guess = precoded(16, 4), several(3, 2)
    guess = guess if drawn else guess._replace(noise={})
    seen = observe(net, Batch(guess.images[0], torch.tensor([1, 2])))
    problem = Problem.of(seen, net, derive(0), "cpu")
    means, singles = problem.gradients(guess), problem.example_gradients(guess)
    start = state_of(net)
    for trial in range(3):
        for name in start.weights:
            assert torch.allclose(means[name][trial], singles[name][trial].mean(0), atol=1e-6)
        for n in range(2):
            noise = {DRAW: guess.noise[DRAW][trial, n, None]} if drawn else {}
            one = Batch(guess.images[trial, n, None], guess.labels[trial, n, None])
            alone = gradient(net, start._replace(buffers=noise), one).tree
            assert largest_difference({k: g[trial, n] for k, g in singles.items()}, alone) < 1e-6


def test_gradients_can_be_differentiated_in_all_that_is_guessed() -> None:
    net, guess = precoded(16, 4), several(2, 2)
    seen = observe(net, Batch(guess.images[0], torch.tensor([1, 2])))
    problem = Problem.of(seen, net, derive(0), "cpu")
    live = [guess.images.requires_grad_(), guess.labels.requires_grad_(), guess.noise[DRAW].requires_grad_()]
    for found in (problem.gradients(guess), problem.example_gradients(guess)):
        pulls = torch.autograd.grad(flat({k: g[0] for k, g in found.items()}).square().sum(), live)
        assert all(bool((pull[0] != 0).any()) for pull in pulls)
        assert all(bool((pull[1] == 0).all()) for pull in pulls)  # one trial is nothing to another


def test_with_what_the_client_drew_the_guess_is_exact() -> None:
    """The draw comes from the client's order generator; without it the truth does not explain what was sent."""
    net = precoded(16, 4)
    batch = Batch(torch.rand(2, *TASK.image_shape, generator=derive(0)), torch.tensor([1, 2]))
    seen = observe(net, batch)
    problem = Problem.of(seen, net, derive(0), "cpu")
    drawn = {name: z[None] for name, z in draw_noise(net, 2, derive(0, "order")).items()}
    exact = problem.gradients(Guess(batch.images[None], batch.labels[None], drawn))
    at_mean = problem.gradients(Guess(batch.images[None], batch.labels[None]))
    assert largest_difference({k: g[0] for k, g in exact.items()}, seen.update.delta) < 1e-6
    assert largest_difference({k: g[0] for k, g in at_mean.items()}, seen.update.delta) > 1e-3


def test_granted_labels_are_not_inferred(seen: Observation, model: nn.Module) -> None:
    granted = replace(seen, knowledge=Knowledge(labels=torch.tensor([9])))
    assert Problem.of(granted, model, derive(0), "cpu").labels.tolist() == [9]
    assert Problem.of(seen, model, derive(0), "cpu").labels.tolist() == [2]


@pytest.mark.parametrize("batchnorm", ["train", "eval"])
def test_the_model_is_in_the_mode_that_the_client_used(seen: Observation, model: nn.Module, batchnorm: str) -> None:
    protocol = Protocol(batchnorm=batchnorm)  # type: ignore[arg-type]
    assert Problem.of(replace(seen, protocol=protocol), model, derive(0), "cpu").model.training == (
        batchnorm == "train"
    )
