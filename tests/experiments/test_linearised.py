"""Stochastic Lanczos quadrature against the Jacobian written out."""

from functools import partial
from math import log10

import pytest
import torch
from torch import Tensor, nn

from defenses.dpsgd import DpSgd
from defenses.sparsification import RandomPrune
from experiments.linearised import Signal, lanczos, spectrum
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Protocol
from tests.conftest import TASK

FEDAVG = Protocol(mode="fedavg", batch_size=1, local_epochs=2, momentum=0.5)
STD = TASK.std[0]


def images(count: int) -> Batch:
    return Batch(torch.rand(count, *TASK.image_shape, generator=derive(0, "images")), torch.arange(count))


def promised(signal: Signal, batch: Batch, std: float) -> float:
    """MSE on [0, 1] of the linearised posterior, by a dense Jacobian."""
    signal = signal._replace(model=signal.model.double())

    def sent(pixels: Tensor) -> Tensor:
        return signal(Batch(pixels.view(batch.images.shape), batch.labels))

    pixels = batch.images.double().flatten()
    jacobian = STD * torch.autograd.functional.jacobian(sent, pixels)  # type: ignore[no-untyped-call]
    inside = jacobian.T @ jacobian / std**2 + torch.eye(len(pixels))
    return STD**2 * inside.inverse().trace().item() / len(pixels)


@pytest.mark.parametrize("std", [1e-3, 0.05, 1.0])
def test_many_probes_come_to_the_trace(std: float, model: nn.Module) -> None:
    signal, batch = Signal(model, Protocol()), images(1)
    found = [10 ** (-spectrum(signal, batch, TASK, place=i).psnr(std) / 10) for i in range(30)]
    assert sum(found) / 30 == pytest.approx(promised(signal, batch, std), rel=0.1)


@pytest.mark.parametrize(
    "signal",
    [
        partial(Signal, protocol=Protocol(batch_size=2), join=DpSgd(clip=1.0, noise_multiplier=1.0)),
        partial(Signal, protocol=Protocol(batch_size=2), before=(RandomPrune(rate=0.5),)),
        partial(Signal, protocol=FEDAVG),
    ],
    ids=["dpsgd", "pruned", "fedavg"],
)
def test_of_whatever_comes_before_the_noise(signal: partial[Signal], model: nn.Module) -> None:
    batch = images(2)
    found = [10 ** (-spectrum(signal(model), batch, TASK, place=i).psnr(0.05) / 10) for i in range(30)]
    assert sum(found) / 30 == pytest.approx(promised(signal(model), batch, 0.05), rel=0.1)


def test_an_unknown_mask_is_worth_at_most_the_entries_that_it_leaves_on_average(model: nn.Module) -> None:
    """``(1 - rate) J^T J``: as loud a noise, over the root of what is kept."""
    pruned = spectrum(Signal(model, Protocol(), before=(RandomPrune(rate=0.75),)), images(1), TASK)
    whole = spectrum(Signal(model, Protocol()), images(1), TASK)
    assert pruned.psnr(0.05) == pytest.approx(whole.psnr(0.1))


def test_few_steps_promise_too_much_and_all_are_exact() -> None:
    root = torch.randn(12, 12, generator=derive(0), dtype=torch.float64)
    matrix, start = root @ root.T, torch.randn(12, generator=derive(1), dtype=torch.float64)
    exact = (start @ (matrix + torch.eye(12)).inverse() @ start / start.square().sum()).item()
    sums = [(w / (n + 1)).sum().item() for n, w in (lanczos(lambda v: matrix @ v, start, k) for k in range(1, 13))]
    assert sums == sorted(sums)
    assert sums[1] < 0.9 * exact
    assert sums[-1] == pytest.approx(exact, rel=1e-9)


def test_a_matrix_of_zeros_ends_at_once() -> None:
    nodes, weights = lanczos(torch.zeros_like, torch.ones(5), 5)
    assert (nodes.tolist(), weights.tolist()) == ([0.0], [1.0])


def test_endless_noise_leaves_the_mean_colour(model: nn.Module) -> None:
    assert spectrum(Signal(model, Protocol()), images(1), TASK).psnr(1e9) == pytest.approx(-10 * log10(STD**2))
