from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attacks.priors import BatchNormStatistics, ClientStatistics
from attacks.problem import Problem
from fl_sim import models
from fl_sim.core.errors import UnmetKnowledgeError
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Protocol
from tests.attacks.priors.conftest import images
from tests.conftest import TASK, observe

MODES = pytest.mark.parametrize("mode", ["eval", "train"])


def two_layers() -> nn.Module:
    """With statistics that no layer was born with."""
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(144), nn.Linear(144, 10)
    )
    rng = derive(0, "net")
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=rng) + 0.1)
    return models.Model(models.Normalise(TASK.mean, TASK.std), net)


def problem_of(net: nn.Module, mode: str = "eval") -> Problem:
    batch = Batch(images(1, 3)[0].clamp(0, 1), torch.tensor([0, 1, 2]))
    seen = observe(net, batch, Protocol(batch_size=3, batchnorm=mode))  # type: ignore[arg-type]
    return Problem.of(seen, net, derive(0), "cpu")


def by_hand(net: nn.Module, batch: Tensor, mode: str) -> tuple[float, float]:
    """The two layers' distances, one operation after the other."""
    conv, first, _, _, second, _ = net.net  # type: ignore[misc]
    x = conv((batch - TASK.mean[0]) / TASK.std[0])
    flat = x.permute(1, 0, 2, 3).reshape(4, -1)
    one = (flat.mean(1) - first.running_mean).norm() + (flat.var(1, unbiased=False) - first.running_var).norm()
    mean, variance = (
        (flat.mean(1), flat.var(1, unbiased=False))
        if mode == "train"
        else (
            first.running_mean,
            first.running_var,
        )
    )
    scale = (first.weight / (variance + first.eps).sqrt()).view(-1, 1, 1)
    y = ((x - mean.view(-1, 1, 1)) * scale + first.bias.view(-1, 1, 1)).relu().flatten(1)
    two = (y.mean(0) - second.running_mean).norm() + (y.var(0, unbiased=False) - second.running_var).norm()
    return one.item(), two.item()


@MODES
def test_agrees_with_the_layers_one_by_one(mode: str) -> None:
    net, pixels = two_layers(), images(2, 3)
    problem = problem_of(net, mode)
    layers = [by_hand(net, batch, mode) for batch in pixels]
    expected = [0.5 * (7 * one + two) for one, two in layers]
    assert BatchNormStatistics(weight=0.5, first=7)(pixels, problem).tolist() == pytest.approx(expected, rel=1e-4)


def test_the_first_layer_counts_ten_times_unless_said_otherwise() -> None:
    problem, pixels = problem_of(two_layers()), images(1, 3)
    none, once, ten = (BatchNormStatistics(weight=1, first=f)(pixels, problem).item() for f in (0, 1, 10))
    assert BatchNormStatistics(weight=1)(pixels, problem).item() == ten
    assert ten - none == pytest.approx(10 * (once - none), rel=1e-5)


def test_a_batch_that_has_the_statistics_costs_nothing() -> None:
    norm, batch = nn.BatchNorm2d(1), (images(1, 3) - TASK.mean[0]) / TASK.std[0]
    norm.running_mean, norm.running_var = batch.mean().view(1), batch.var(correction=0).view(1)
    net = models.Model(models.Normalise(TASK.mean, TASK.std), nn.Sequential(norm, nn.Flatten(), nn.Linear(64, 10)))
    assert BatchNormStatistics(weight=1)(images(1, 3), problem_of(net)).item() < 1e-5
    assert BatchNormStatistics(weight=1)(images(1, 3) + 0.1, problem_of(net)).item() > 0.1


@MODES
def test_leaves_model_and_statistics_alone(mode: str) -> None:
    problem = problem_of(two_layers(), mode)
    before = {name: t.clone() for name, t in (problem.model.state_dict() | dict(problem.seen.buffers)).items()}
    BatchNormStatistics(weight=1)(images(2, 3), problem)
    after = problem.model.state_dict() | dict(problem.seen.buffers)
    assert all(torch.equal(t, after[name]) for name, t in before.items())
    assert not any(module._forward_pre_hooks for module in problem.model.modules())


def test_a_bundled_model_is_understood() -> None:
    net = models.build("resnet18", TASK, 0, width=2)
    pixels = images(2, 3).requires_grad_()
    cost = BatchNormStatistics(weight=1)(pixels, problem_of(net))
    assert bool(torch.autograd.grad(cost.sum(), pixels)[0].isfinite().all())


def test_without_batch_norm_it_says_what_to_use(problem: Problem) -> None:
    with pytest.raises(UnmetKnowledgeError, match=r"with none.*resnet18 or convnet, or leave this prior out"):
        BatchNormStatistics(weight=1).check(problem.seen, problem.model)


@pytest.mark.parametrize("mode", ["fedsgd", "fedavg"])
@pytest.mark.parametrize("epochs", [1, 3])
def test_the_client_betrays_its_batchs_statistics(mode: str, epochs: int) -> None:
    """Exactly, where the weights stay where they are."""
    net, truth = two_layers(), images(1, 3).clamp(0, 1)
    protocol = Protocol(mode=mode, batch_size=3, learning_rate=1e-9, local_epochs=epochs, batchnorm="train")  # type: ignore[arg-type]
    seen = observe(net, Batch(truth[0], torch.tensor([0, 1, 2])), protocol)
    problem = Problem.of(seen, net, derive(0), "cpu")
    cost = ClientStatistics(weight=1)(torch.cat([truth, images(2, 3)]), problem)
    assert cost[0].item() < 1e-3 * cost[1].item()
    assert cost[0].item() < 1e-3 * BatchNormStatistics(weight=1, first=1)(truth, problem).item()


def test_client_statistics_are_refused_where_there_are_none() -> None:
    net = two_layers()
    with pytest.raises(UnmetKnowledgeError, match="where batch norm trains"):
        ClientStatistics(weight=1).check(problem_of(net, "eval").seen, net)
    problem = problem_of(net, "train")
    ClientStatistics(weight=1).check(problem.seen, net)
    bare = replace(problem, seen=replace(problem.seen, update=replace(problem.seen.update, buffers={})))
    with pytest.raises(UnmetKnowledgeError, match="returned no running statistics"):
        ClientStatistics(weight=1)(images(1, 3), bare)
