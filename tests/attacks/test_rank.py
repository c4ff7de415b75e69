"""The attack ``rank``: batches behind a fully connected layer and ReLU."""

import math
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attacks.analytic import rank, ratio
from attacks.analytic.first_layer import FirstLayer
from attacks.analytic.mixture import Mixture
from attacks.analytic.sparse import distinct, independent, random_kernels, sparsest, zeros
from defenses.noise import Gaussian
from fl_sim import models
from fl_sim.core.errors import UnmetKnowledgeError
from fl_sim.core.knowledge import Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.trees import map_tree
from fl_sim.core.types import Batch, Observation, Outcome, Protocol, Reconstruction
from fl_sim.metrics.image import psnr
from fl_sim.metrics.matching import match
from tests.conftest import TASK, observe

CONVERGED, OUT_OF_STEPS = Outcome.CONVERGED, Outcome.OUT_OF_STEPS


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return models.build("mlp", TASK, 0, widths=[512])


def batch_of(number: int) -> Batch:
    images = torch.rand(number, *TASK.image_shape, generator=derive(number, "images"))
    return Batch(images, torch.randint(0, 10, (number,), generator=derive(number, "labels")))


def quality(found: Reconstruction, truth: Batch) -> tuple[float, list[int]]:
    """The worst PSNR after matching, dB, and the labels in the order of the truth."""
    order = match(found.images, truth.images)
    return psnr(found.images[order], truth.images).min().item(), found.labels[order].tolist()


@pytest.mark.parametrize("number", [1, 2, 4, 8, 12])
def test_every_image_of_a_batch_is_found_with_its_label(net: nn.Module, number: int) -> None:
    batch = batch_of(number)
    found = rank(seconds=60)(observe(net, batch), net, derive(0))
    assert quality(found, batch)[0] > 120
    assert quality(found, batch)[1] == batch.labels.tolist()
    assert found.outcome is CONVERGED
    assert found.loss < 1e-5


def test_granted_labels_are_put_in_order(net: nn.Module) -> None:
    batch = batch_of(6)
    known = Knowledge(labels=batch.labels.sort().values)
    found = rank()(replace(observe(net, batch), knowledge=known), net, derive(0))
    assert quality(found, batch)[1] == batch.labels.tolist()


def test_few_units_are_enough_for_few_images() -> None:
    """The right directions have a handful of zeros, so that the sparsest ones are not always right."""
    net, batch = models.build("mlp", TASK, 0, widths=[32]), batch_of(2)
    found = rank()(observe(net, batch), net, derive(0))
    assert found.outcome is CONVERGED
    assert quality(found, batch)[0] > 100


def test_one_image_is_that_of_the_ratio(net: nn.Module) -> None:
    seen = observe(net, batch_of(1))
    noisy = replace(seen, update=Gaussian(std=0.01).protect(seen.update, derive(0)).update)
    for observation in (seen, noisy):
        assert torch.equal(rank()(observation, net, derive(0)).images, ratio()(observation, net, derive(0)).images)
        assert rank()(observation, net, derive(0)).outcome is CONVERGED


@pytest.mark.parametrize(("std", "outcome", "least"), [(1e-5, CONVERGED, 70), (1e-4, CONVERGED, 50), (1e-2, None, 0)])
def test_under_noise_it_says_what_it_knows(net: nn.Module, std: float, outcome: Outcome | None, least: float) -> None:
    batch = batch_of(4)
    seen = observe(net, batch)
    noisy = replace(seen, update=Gaussian(std=std).protect(seen.update, derive(0)).update)
    found = rank(samples=256)(noisy, net, derive(0))
    assert found.outcome is (outcome or OUT_OF_STEPS)
    assert quality(found, batch)[0] > least
    assert found.loss > std


def test_local_steps_keep_the_rank(net: nn.Module) -> None:
    """Every step adds to the images' coefficients, and to nothing else; the protocol need not be known."""
    batch = batch_of(4)
    seen = observe(net, batch, Protocol(mode="fedavg", batch_size=2, local_epochs=2, learning_rate=0.01, momentum=0.5))
    for observation in (seen, replace(seen, protocol=None)):
        found = rank()(observation, net, derive(0))
        assert found.outcome is CONVERGED
        assert quality(found, batch)[0] > 80


def test_too_many_images_end_the_budget_not_in_success(net: nn.Module) -> None:
    small, batch = models.build("mlp", TASK, 0, widths=[24]), batch_of(12)
    seen = observe(small, batch)
    steps = rank(samples=100)(seen, small, derive(0))
    assert (steps.outcome, steps.budget.iterations) == (OUT_OF_STEPS, 128)
    assert steps.loss > 0.05
    timed = rank(seconds=1e-9)(seen, small, derive(0))
    assert (timed.outcome, timed.budget.iterations) == (Outcome.OUT_OF_TIME, 0)


def test_an_image_without_a_trace_is_not_invented() -> None:
    """Two equal images are one to this attack."""
    net, two = models.build("mlp", TASK, 0, widths=[128]), batch_of(2)
    batch = Batch(two.images[[0, 0, 1]], two.labels[[0, 0, 1]])
    found = rank()(observe(net, batch), net, derive(0))
    assert found.outcome is OUT_OF_STEPS
    assert len(torch.unique(found.images, dim=0)) == 2
    different = torch.unique(found.images, dim=0)
    assert quality(replace(found, images=different, labels=found.labels[:2]), two)[0] > 100


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_an_update_without_an_image_is_said_to_be_so(seen: Observation, model: nn.Module, value: float) -> None:
    nothing = map_tree(lambda t: torch.full_like(t, value), seen.update.delta)
    found = rank()(replace(seen, update=replace(seen.update, delta=nothing)), model, derive(0))
    assert found.outcome is Outcome.NON_FINITE
    assert found.loss == math.inf


@pytest.mark.parametrize("name", ["softmax", "lenet"])
def test_a_model_without_relu_behind_a_first_linear_layer_is_refused(name: str, batch: Batch) -> None:
    net = models.build(name, TASK, 0)
    with pytest.raises(UnmetKnowledgeError, match="mlp"):
        rank()(observe(net, batch), net, derive(0))


def test_another_activation_is_refused(batch: Batch) -> None:
    layers = OrderedDict(flatten=nn.Flatten(), fc=nn.Linear(64, 9), tanh=nn.Tanh(), head=nn.Linear(9, 10))
    net = nn.Sequential(layers)
    with pytest.raises(UnmetKnowledgeError, match=r"behind this model's is Tanh\(\): use the model mlp, or the attack"):
        rank()(observe(net, batch), net, derive(0))


def planted(rows: int, rank: int, share: float) -> tuple[Tensor, Tensor]:
    """A basis of the span of ``rank`` columns with a ``share`` of zeros, and each column's unit direction in it."""
    columns = torch.randn(rows, rank, generator=derive(0)).double()
    columns = columns * (torch.rand(rows, rank, generator=derive(1)) > share)
    basis = torch.linalg.qr(columns).Q
    directions = torch.linalg.lstsq(basis, columns).solution.T
    return basis, directions / directions.norm(dim=1, keepdim=True)


def test_planted_sparse_directions_are_found() -> None:
    basis, right = planted(200, 6, 0.5)
    noise = torch.zeros(6).double()
    found = sparsest(basis, random_kernels(basis, 64, derive(2)), noise)
    found = found[zeros(basis, found, noise).sum(1).argsort(descending=True, stable=True)]
    chosen = found[independent(found)]
    assert ((chosen @ right.T).abs().amax(0) > 1 - 1e-12).all()
    assert torch.equal(zeros(basis, right, noise).sum(1), (right @ basis.T).abs().lt(1e-9).sum(1))


def test_kernels_are_zero_where_they_were_asked_to_be() -> None:
    basis, _ = planted(50, 4, 0.3)
    kernels = random_kernels(basis, 10, derive(0))
    assert torch.allclose(kernels.norm(dim=1), torch.ones(10).double())
    assert ((kernels @ basis.T).abs().lt(1e-9).sum(1) >= 3).all()


def test_of_parallel_directions_the_first_is_kept() -> None:
    a, b = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert distinct(torch.stack([a, b, -a, a])).tolist() == [0, 1]
    assert independent(torch.stack([a, -a, b, a])) == [0, 2]


def test_the_mismatch_is_zero_for_the_truth_alone(net: nn.Module) -> None:
    batch = batch_of(4)
    gradient, parameters = (
        torch.cat([tree["net.fc1.weight"], tree["net.fc1.bias"][:, None]], 1).double()
        for tree in (observe(net, batch).update.delta, dict(net.named_parameters()))
    )
    mixture = Mixture.of(FirstLayer(gradient, parameters.detach()), 4)
    singles = [observe(net, Batch(batch.images[i, None], batch.labels[i, None])).update.delta for i in range(4)]
    deltas = torch.stack([single["net.fc1.bias"].double() for single in singles], 1)
    right = torch.linalg.lstsq(mixture.left, deltas).solution.T
    right = right / right.norm(dim=1, keepdim=True)
    mixed = torch.nn.functional.normalize(torch.stack([right[0] + right[1], *right[1:]]), dim=1)
    truth, wrong, twice = mixture.mismatch(torch.stack([right, mixed, right[[0, 0, 2, 3]]])).tolist()
    assert truth < 1e-6
    assert wrong > 0.1
    assert twice == 1
    assert torch.allclose(mixture.images(right)[1], deltas.T / 4, atol=1e-7)
