"""Stochastic Lanczos quadrature against the Jacobian written out."""

from functools import partial
from math import log10

import pytest
import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor, nn

from defenses.dpsgd import DpSgd
from defenses.sparsification import RandomPrune
from experiments.linearised import Covariance, Linear, Signal, Spectrum, lanczos, spectrum
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Protocol
from tests.conftest import TASK

FEDAVG = Protocol(mode="fedavg", batch_size=1, local_epochs=2, momentum=0.5)
STD = TASK.std[0]


def images(count: int) -> Batch:
    return Batch(torch.rand(count, *TASK.image_shape, generator=derive(0, "images")), torch.arange(count))


def posterior(signal: Signal, batch: Batch, std: float) -> Tensor:
    """Covariance on [0, 1] that the linearised posterior has, its Jacobian by central differences."""
    signal, pixels = signal._replace(model=signal.model.double()), batch.images.double().flatten()

    def moved(place: int, by: float) -> Tensor:
        there = pixels.clone()
        there[place] += by
        return signal(Batch(there.view(batch.images.shape), batch.labels)).detach()

    columns = [(moved(i, 1e-5) - moved(i, -1e-5)) / 2e-5 for i in range(len(pixels))]
    jacobian = STD * torch.stack(columns, 1)
    return STD**2 * (jacobian.T @ jacobian / std**2 + torch.eye(len(pixels))).inverse()


def probed(
    signal: Signal, batch: Batch, place: int = 0, prior: Covariance | None = None, image: int | None = None
) -> Spectrum:
    found = Covariance.independent(64) if prior is None else prior
    return spectrum(Linear.of(signal, batch, TASK), TASK, found, steps=128, place=place, image=image)


def seen_by_probe(covariance: Tensor, place: int = 0, prior: Tensor | None = None) -> float:
    """Scaled as the trace of the prior wants it, whose covariance on [0, 1] that is."""
    signs = (torch.randint(2, (len(covariance),), generator=derive(0, "signs", place)) * 2.0 - 1).double()
    scale = 1.0 if prior is None else float(prior.trace() / (signs @ prior @ signs))
    return scale * float(signs @ covariance @ signs) / len(covariance)


@pytest.mark.parametrize(
    "signal",
    [
        partial(Signal, protocol=Protocol()),
        partial(Signal, protocol=Protocol(batch_size=2), join=DpSgd(clip=1.0, noise_multiplier=1.0)),
        partial(Signal, protocol=Protocol(batch_size=2), before=((RandomPrune(rate=0.5), {}),)),
        partial(Signal, protocol=FEDAVG),
    ],
    ids=["plain", "dpsgd", "pruned", "fedavg"],
)
def test_a_probe_sees_the_covariance_of_whatever_comes_before_the_noise(
    signal: partial[Signal], model: nn.Module
) -> None:
    batch = images(2 if signal.keywords["protocol"].batch_size == 2 else 1)
    found = probed(signal(model), batch)
    for std in (1e-3, 0.05, 1.0):
        expected = seen_by_probe(posterior(signal(model), batch, std))
        assert 10 ** (-found.psnr(std) / 10) == pytest.approx(expected, rel=1e-3)


def test_a_prior_of_its_own_shape_is_the_one_that_is_told(model: nn.Module) -> None:
    """Against the formula with the Jacobian and the covariance written out."""
    signal, batch, std = Signal(model, Protocol()), images(1), 0.05
    public = torch.rand(300, *TASK.image_shape, generator=derive(1)).cumsum(3) / 8
    prior = Covariance.fitted(public, TASK)
    told = prior.rows.T @ prior.rows + prior.floor**2 * torch.eye(64)
    precision = posterior(signal, batch, std).inverse() * STD**2 - torch.eye(64, dtype=torch.float64)
    covariance = STD**2 * (precision + told.inverse()).inverse()
    found = probed(signal, batch, prior=prior).error(std)
    assert found == pytest.approx(seen_by_probe(covariance, prior=STD**2 * told), rel=1e-3)
    assert prior.variance(TASK.std) == pytest.approx(float(told.trace()) * STD**2 / 64)


def test_a_covariance_is_scikit_learns_and_its_root_is_one() -> None:
    public = torch.rand(90, *TASK.image_shape, generator=derive(2)).cumsum(3) / 8
    prior = Covariance.fitted(public, TASK)
    expected, _ = ledoit_wolf(((public.double() - TASK.mean[0]) / STD).flatten(1).numpy())
    assert torch.allclose(prior.rows.T @ prior.rows + prior.floor**2 * torch.eye(64), torch.from_numpy(expected))
    two = torch.randn(2 * 64, generator=derive(3), dtype=torch.float64)
    each = two.view(2, 64) @ torch.from_numpy(expected)
    assert torch.allclose(prior.root(prior.transposed(two)), each.flatten())


def test_one_image_of_a_batch_has_its_own_part_of_the_trace(model: nn.Module) -> None:
    batch, std = images(3), 0.05
    covariance = posterior(Signal(model, Protocol(batch_size=3)), batch, std)
    for image in range(3):
        own = slice(64 * image, 64 * image + 64)
        found = probed(Signal(model, Protocol(batch_size=3)), batch, image=image).error(std)
        assert found == pytest.approx(seen_by_probe(covariance[own, own]), rel=1e-3)


def test_probes_come_to_the_trace_on_average(model: nn.Module) -> None:
    covariance = posterior(Signal(model, Protocol()), images(1), 0.05)
    found = sum(seen_by_probe(covariance, place) for place in range(400)) / 400
    assert found == pytest.approx(covariance.trace().item() / 64, rel=0.05)


def test_an_unknown_mask_is_worth_at_most_the_entries_that_it_leaves_on_average(model: nn.Module) -> None:
    """``(1 - rate) J^T J``: as loud a noise, over the root of what is kept."""
    pruned = probed(Signal(model, Protocol(), before=((RandomPrune(rate=0.75), {}),)), images(1))
    whole = probed(Signal(model, Protocol()), images(1))
    assert pruned.psnr(0.05) == pytest.approx(whole.psnr(0.1))


def test_few_steps_promise_too_much_and_all_are_exact() -> None:
    root = torch.randn(12, 12, generator=derive(0), dtype=torch.float64)
    matrix, start = root @ root.T, torch.randn(12, generator=derive(1), dtype=torch.float64)
    exact = (start @ (matrix + torch.eye(12)).inverse() @ start / start.square().sum()).item()
    found = [lanczos(lambda v: matrix @ v, start, k) for k in range(1, 13)]
    sums = [(one.weights / (one.nodes + 1)).sum().item() for one in found]
    assert sums == sorted(sums)
    assert sums[1] < 0.9 * exact
    assert sums[-1] == pytest.approx(exact, rel=1e-9)
    solved = (found[-1].parts / (found[-1].nodes + 1)) @ found[-1].vectors
    assert torch.allclose(solved, (matrix + torch.eye(12)).inverse() @ start)


def test_a_matrix_of_zeros_ends_at_once() -> None:
    found = lanczos(torch.zeros_like, torch.ones(5), 5)
    assert (found.nodes.tolist(), found.weights.tolist()) == ([0.0], [1.0])


def test_endless_noise_leaves_the_mean_colour(model: nn.Module) -> None:
    assert probed(Signal(model, Protocol()), images(1)).psnr(1e9) == pytest.approx(-10 * log10(STD**2))
