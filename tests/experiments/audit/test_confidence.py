"""Figures whose answer is known."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from experiments.audit.confidence import confidence
from fl_sim.core.seeds import derive
from fl_sim.core.trees import scale
from fl_sim.core.types import Batch, Budget, Observation, Outcome, Reconstruction
from tests.conftest import observe


def guess(images: Tensor, *labels: int) -> Reconstruction:
    spent = Budget(iterations=0, seconds=0.0, device="cpu")
    whole = torch.tensor(labels)
    return Reconstruction(images=images, labels=whole, outcome=Outcome.CONVERGED, loss=0.0, budget=spent)


def test_the_truth_fits_and_two_runs_that_found_it_agree(seen: Observation, model: nn.Module, batch: Batch) -> None:
    other = torch.rand(batch.images.shape, generator=derive(5))
    found = confidence(seen, model, guess(batch.images, 2), guess(batch.images, 2), other)
    assert found["agreement"] == [1.0]
    assert found["fit"] == pytest.approx(1.0, abs=1e-5)
    assert found["misfit"] == pytest.approx(0.0, abs=1e-5)
    assert found["labels"] == 1.0


def test_a_change_of_weights_fits_as_its_gradient_does(seen: Observation, model: nn.Module, batch: Batch) -> None:
    moved = replace(seen, update=replace(seen.update, delta=scale(seen.update.delta, -0.1), kind="delta"))
    found = confidence(moved, model, guess(batch.images, 2), None, None)
    assert found["misfit"] == pytest.approx(0.0, abs=1e-5)
    assert (found["agreement"], found["fit"], found["labels"]) == (None, None, None)


def test_runs_as_far_apart_as_strangers_do_not_agree(seen: Observation, model: nn.Module) -> None:
    one, two, three = (torch.rand(1, 1, 8, 8, generator=derive(seed)) for seed in (1, 2, 3))
    found = confidence(seen, model, guess(one, 2), guess(two, 2), three)
    assert found["agreement"][0] < 0.2
    assert abs(found["fit"]) < 0.5
    assert found["difference"][0] == pytest.approx(float((one - two).square().mean().sqrt()))


def test_order_inside_a_batch_does_not_count(model: nn.Module) -> None:
    images = torch.rand(3, 1, 8, 8, generator=derive(1))
    seen = observe(model, Batch(images, torch.tensor([1, 2, 3])))
    other = torch.rand(3, 1, 8, 8, generator=derive(2))
    found = confidence(seen, model, guess(images, 1, 2, 3), guess(images.flip(0), 3, 2, 2), other)
    assert found["agreement"] == [1.0] * 3
    assert found["labels"] == pytest.approx(2 / 3)
