"""What a fully connected layer behind convolutions gives away, and what is found from it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from attacks import ATTACKS
from attacks.entering import by_trial, entering
from attacks.likelihoods import Features
from attacks.likelihoods.features import input_of
from attacks.problem import Problem
from fl_sim import models
from fl_sim.core.errors import UnmetKnowledgeError
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Protocol
from fl_sim.metrics.image import psnr
from fl_sim.training.local import state_of
from tests.attacks.problems import guess_of
from tests.conftest import TASK, observe

NETS = ("cnn", "lenet", "convnet", "mlp")
WIDE = replace(TASK, image_shape=(1, 16, 16))


def images(count: int) -> torch.Tensor:
    return torch.rand(count, *TASK.image_shape, generator=derive(0, "images"))


def problem(net: nn.Module, image: torch.Tensor) -> Problem:
    channels, height, width = image.shape
    seen = observe(net, Batch(image[None], torch.tensor([3])))
    task = replace(TASK, image_shape=(channels, height, width))
    return Problem.of(replace(seen, task=task), net, derive(0), "cpu")


def by_hand(net: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """What the first fully connected layer is given, by running the layers before it."""
    inner, out = net.get_submodule("net"), (image[None] - TASK.mean[0]) / TASK.std[0]
    for layer in inner.children():
        if isinstance(layer, nn.Linear):
            break
        out = layer(out)
    return out[0].detach()


@pytest.mark.parametrize("name", NETS)
def test_the_input_of_the_first_fully_connected_layer_is_read_off_exactly(name: str) -> None:
    net = models.build(name, WIDE, 0).eval()
    image = torch.rand(1, 16, 16, generator=derive(0, "image"))
    given = problem(net, image)
    layer = "net.fc1" if name in {"cnn", "mlp"} else "net.head"
    read = input_of(given.targets, layer)[0]
    assert (read - by_hand(net, image)).norm() < 1e-4 * read.norm()


@pytest.mark.parametrize("name", NETS)
def test_the_truth_costs_nothing_and_others_do(name: str) -> None:
    net = models.build(name, WIDE, 0).eval()
    pair = torch.rand(2, 1, 16, 16, generator=derive(0, "images"))
    given = problem(net, pair[0])
    misfit = Features().bind(given)
    costs = misfit.cost(given.inputs(guess_of(pair[:, None], given)))
    assert costs[0] < 1e-8
    assert costs[1] > 1e-4


def test_each_trial_has_the_features_of_its_own_observation() -> None:
    net = models.build("cnn", TASK, 0).eval()
    pair = images(2)
    problems = [problem(net, image) for image in pair]
    joint = Problem.joined([problems[0], problems[0].shared(problems[1])], 1)
    costs = Features().bind(joint).cost(joint.inputs(guess_of(pair[:, None], joint)))
    assert costs.max() < 1e-8
    swapped = Features().bind(joint).cost(joint.inputs(guess_of(pair.flip(0)[:, None], joint)))
    assert swapped.min() > 1e-4


def test_batch_norm_in_train_mode_joins_the_examples_of_a_trial_alone() -> None:
    net = models.build("convnet", WIDE, 0).train()
    layer, many = net.get_submodule("net.head"), torch.rand(3, 2, 1, 16, 16, generator=derive(0, "images"))
    together = by_trial(net, state_of(net), layer, many)
    for trial, own in zip(together, many, strict=True):
        assert torch.allclose(trial, entering(net, state_of(net), layer, own)[0], atol=1e-5)


def test_noise_on_the_gradient_is_averaged_over_the_rows() -> None:
    """Row by row the ratio is as good as its own bias gradient; all rows together are better than the best of them."""
    net = models.build("cnn", TASK, 0).eval()
    given = problem(net, images(1)[0])
    exact = input_of(given.targets, "net.fc1")
    rng = derive(1)
    noisy = {name: t + 1e-4 * torch.randn(t.shape, generator=rng) for name, t in given.targets.items()}
    weight, bias = noisy["net.fc1.weight"][0], noisy["net.fc1.bias"][0]
    best = bias.abs().argmax()
    row = (weight[best] / bias[best] - exact).norm()
    assert (input_of(noisy, "net.fc1") - exact).norm() < row


def test_a_few_steps_from_the_features_are_ahead_of_as_many_from_noise() -> None:
    net = models.build("cnn", TASK, 0).eval()
    batch = Batch(images(1), torch.tensor([2]))
    seen = observe(net, batch)
    options = {"steps": 30, "tv": 1e-5, "signed": False, "step_size": 0.02}
    plain, begun = (
        ATTACKS["inverting_gradients"](**options, feature_steps=steps)(seen, net, derive(0)) for steps in (0, 60)
    )
    assert psnr(begun.images, batch.images).item() > psnr(plain.images, batch.images).item() + 5
    assert begun.budget.iterations == plain.budget.iterations + 60


@pytest.mark.parametrize(
    ("net", "protocol", "count", "said"),
    [
        ("cnn", Protocol(batch_size=2), 2, "this update is of 2 and 1"),
        ("cnn", Protocol(mode="fedavg", local_epochs=3, learning_rate=0.1), 1, "this update is of 1 and 3"),
    ],
)
def test_what_it_cannot_read_is_refused(net: str, protocol: Protocol, count: int, said: str) -> None:
    model = models.build(net, TASK, 0)
    seen = observe(model, Batch(images(count), torch.arange(count)), protocol)
    with pytest.raises(UnmetKnowledgeError, match=said):
        ATTACKS["feature_inversion"]()(seen, model, derive(0))


def test_a_model_without_such_a_layer_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten())
    seen = observe(model, Batch(images(1), torch.tensor([1])))
    with pytest.raises(UnmetKnowledgeError, match="has none"):
        ATTACKS["feature_inversion"]()(seen, model, derive(0))
