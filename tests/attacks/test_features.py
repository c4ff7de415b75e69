"""What a fully connected layer behind convolutions gives away, and what is found from it."""

from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import nn

from attacks import ATTACKS
from attacks.likelihoods import Features
from attacks.likelihoods.features import input_of
from attacks.problem import Problem
from fl_sim import models
from fl_sim.core.errors import UnmetKnowledgeError
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Protocol
from fl_sim.metrics.image import psnr
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


def costs(likelihood: Features, given: Problem, guessed: torch.Tensor) -> torch.Tensor:
    """Of images ``(T, C, H, W)``, one a trial."""
    misfit = likelihood.bind(given)
    assert callable(misfit.of)
    return misfit.cost(misfit.of(given, guess_of(guessed[:, None], given)))


def read(given: Problem, support: Literal["all", "observed"] = "all", **changed: torch.Tensor) -> torch.Tensor:
    """What ``net.fc1`` was given, with other gradients of its ``weight`` or ``bias``."""
    targets = {**given.targets, **{f"net.fc1.{kind}": t for kind, t in changed.items()}}
    return input_of(targets, "net.fc1", support)[0]


@pytest.mark.parametrize("name", NETS)
def test_the_input_of_the_first_fully_connected_layer_is_read_off_exactly(name: str) -> None:
    net = models.build(name, WIDE, 0).eval()
    image = torch.rand(1, 16, 16, generator=derive(0, "image"))
    layer = "net.fc1" if name in {"cnn", "mlp"} else "net.head"
    for support in ("all", "observed"):
        found = input_of(problem(net, image).targets, layer, support)[0][0]
        assert (found - by_hand(net, image)).norm() < 1e-4 * found.norm()


@pytest.mark.parametrize("name", NETS)
def test_the_truth_costs_nothing_and_others_do(name: str) -> None:
    net = models.build(name, WIDE, 0).eval()
    pair = torch.rand(2, 1, 16, 16, generator=derive(0, "images"))
    right, wrong = costs(Features(), problem(net, pair[0]), pair)
    assert right < 1e-8
    assert wrong > 1e-4


def test_each_trial_has_the_features_of_its_own_observation() -> None:
    net = models.build("cnn", TASK, 0).eval()
    pair = images(2)
    problems = [problem(net, image) for image in pair]
    joint = Problem.joined([problems[0], problems[0].shared(problems[1])], 1)
    assert costs(Features(), joint, pair).max() < 1e-8
    assert costs(Features(), joint, pair.flip(0)).min() > 1e-4


def test_batch_norm_in_train_mode_joins_no_trials() -> None:
    net = models.build("convnet", WIDE, 0)
    many = torch.rand(3, 1, 16, 16, generator=derive(0, "images"))
    given = problem(net, many[0])
    given.model.train()
    alone = torch.cat([costs(Features(), given, image[None]) for image in many])
    assert torch.allclose(costs(Features(), given, many), alone, rtol=1e-4)
    given.model.eval()
    assert not torch.allclose(costs(Features(), given, many), alone, rtol=1e-2)


def test_a_layer_that_counts_for_nothing_gives_way_to_the_next() -> None:
    net = models.build("cnn", TASK, 0).eval()
    pair = images(2)
    given = problem(net, pair[0])
    spoilt = {**given.targets, "net.fc1.weight": torch.rand_like(given.targets["net.fc1.weight"])}
    right, wrong = costs(Features(dropped=("net.fc1.weight",)), replace(given, targets=spoilt), pair)
    assert right < 1e-8
    assert wrong > 1e-4
    assert costs(Features(), replace(given, targets=spoilt), pair[:1]).item() > 0.1


def test_noise_on_the_gradient_is_averaged_over_the_rows() -> None:
    """All rows together are better than the row of the largest bias gradient, which papers and released code use."""
    net = models.build("cnn", TASK, 0).eval()
    given = problem(net, images(1)[0])
    noisy = {
        kind: (t := given.targets[f"net.fc1.{kind}"]) + 1e-4 * torch.randn(t.shape, generator=derive(1))
        for kind in ("weight", "bias")
    }
    weight, bias = noisy["weight"][0], noisy["bias"][0]
    best = bias.abs().argmax()
    found = read(given, weight=noisy["weight"], bias=noisy["bias"])
    assert (found - read(given)).norm() < (weight[best] / bias[best] - read(given)).norm()


def test_pruned_entries_are_missing_not_small() -> None:
    """Of each column the largest tenth is sent: what is left of it still says what went in."""
    net = models.build("cnn", TASK, 0).eval()
    given = problem(net, images(1)[0])
    weight = given.targets["net.fc1.weight"]
    pruned = torch.where(weight.abs() >= weight.abs().quantile(0.9, 1, keepdim=True), weight, 0.0)
    assert (pruned == 0).float().mean() > 0.5
    exact = read(given)
    assert (read(given, "observed", weight=pruned) - exact).norm() < 1e-4 * exact.norm()
    assert (read(given, "all", weight=pruned) - exact).norm() > 0.05 * exact.norm()


def test_columns_whose_rows_lost_their_biases_say_nothing() -> None:
    """Random pruning takes weights and biases alike; without a bias an entry tells nothing of its input."""
    net = models.build("cnn", TASK, 0).eval()
    pair = images(2)
    given = problem(net, pair[0])
    sent = {
        name: t * (torch.rand(t.shape, generator=derive(0, name)) > 0.9) if name.startswith("net.fc1") else t
        for name, t in given.targets.items()
    }
    _, known = input_of(sent, "net.fc1", "observed")
    assert 0.05 < known.mean() < 0.95
    right, wrong = costs(Features(support="observed"), replace(given, targets=sent), pair)
    assert right < 1e-8
    assert wrong > 1e-4


def test_soteria_s_columns_say_nothing_where_zeros_were_not_sent() -> None:
    net = models.build("cnn", TASK, 0).eval()
    pair = images(2)
    given = problem(net, pair[0])
    weight = given.targets["net.fc1.weight"].clone()
    weight[..., ::2] = 0
    sent = replace(given, targets={**given.targets, "net.fc1.weight": weight})
    right, wrong = costs(Features(support="observed"), sent, pair)
    assert right < 1e-8
    assert wrong > 1e-4
    assert costs(Features(), sent, pair[:1]).item() > 0.1


def test_the_image_is_found_behind_convolutions() -> None:
    model, batch = models.build("cnn", TASK, 0).eval(), Batch(images(1), torch.tensor([2]))
    found = ATTACKS["feature_inversion"](steps=200, tv=1e-6)(observe(model, batch), model, derive(0))
    assert psnr(found.images, batch.images).item() > 30  # uniform noise is at 8
    assert found.loss < 1e-3


def test_steps_from_the_features_are_ahead_of_as_many_from_noise() -> None:
    model, batch = models.build("cnn", TASK, 0).eval(), Batch(images(1), torch.tensor([2]))
    seen = observe(model, batch)
    plain = ATTACKS["inverting_gradients"](steps=60, tv=1e-5, signed=False, step_size=0.8)
    begun = ATTACKS["inverting_gradients"](steps=20, tv=1e-5, signed=False, step_size=0.02, feature_steps=40)
    guesses = [attack(seen, model, derive(0)) for attack in (plain, begun)]
    first, second = (psnr(guess.images, batch.images).item() for guess in guesses)
    assert second > first + 3
    assert guesses[1].budget.iterations == guesses[0].budget.iterations


@pytest.mark.parametrize(
    ("protocol", "count", "said"),
    [
        (Protocol(batch_size=2), 2, "this update is of a single step on 2"),
        (Protocol(mode="fedavg", local_epochs=3, learning_rate=0.1), 1, "this update is of several steps"),
    ],
)
def test_what_it_cannot_read_is_refused(protocol: Protocol, count: int, said: str) -> None:
    model = models.build("cnn", TASK, 0)
    seen = observe(model, Batch(images(count), torch.arange(count)), protocol)
    with pytest.raises(UnmetKnowledgeError, match=said):
        ATTACKS["feature_inversion"]()(seen, model, derive(0))


def test_a_change_of_weights_by_nobody_knows_how_many_steps_is_refused() -> None:
    model = models.build("cnn", TASK, 0)
    protocol = Protocol(mode="fedavg", local_epochs=1, learning_rate=0.1)
    seen = observe(model, Batch(images(1), torch.tensor([1])), protocol)
    attack = ATTACKS["feature_inversion"](steps=2)
    attack(seen, model, derive(0))
    with pytest.raises(UnmetKnowledgeError, match="nobody knows"):
        attack(replace(seen, protocol=None), model, derive(0))


def test_a_model_without_such_a_layer_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten())
    seen = observe(model, Batch(images(1), torch.tensor([1])))
    with pytest.raises(UnmetKnowledgeError, match="has none"):
        ATTACKS["feature_inversion"]()(seen, model, derive(0))
