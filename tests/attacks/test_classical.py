"""Presets on what the conformance tests do not try: batches and several local steps."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from attacks import ATTACKS
from fl_sim.core.seeds import derive
from fl_sim.core.trees import global_norm
from fl_sim.core.types import Batch, Observation, Protocol
from fl_sim.metrics.image import psnr
from fl_sim.metrics.matching import match
from tests.conftest import TASK, observe


def test_without_the_sign_and_with_larger_steps_a_short_search_gets_further(
    seen: Observation, model: nn.Module, batch: Batch
) -> None:
    signed = ATTACKS["inverting_gradients"](steps=60)(seen, model, derive(0))
    plain = ATTACKS["inverting_gradients"](steps=60, signed=False, step_size=0.8)(seen, model, derive(0))
    assert psnr(plain.images, batch.images).item() > psnr(signed.images, batch.images).item() + 1


def test_inverting_gradients_finds_both_images_of_a_batch(model: nn.Module) -> None:
    batch = Batch(torch.rand(2, *TASK.image_shape, generator=derive(0, "image")), torch.tensor([2, 7]))
    attack = ATTACKS["inverting_gradients"](steps=300, tv=1e-4, restarts=3)  # a small net has poor local minima
    found = attack(observe(model, batch), model, derive(0))
    assert found.labels.tolist() == [2, 7]
    assert psnr(found.images[match(found.images, batch.images)], batch.images).min().item() > 20


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_inverting_gradients_sees_through_five_local_steps(model: nn.Module, batch: Batch, momentum: float) -> None:
    protocol = Protocol(mode="fedavg", local_epochs=5, learning_rate=0.05, momentum=momentum)
    seen = observe(model, batch, protocol)
    found = ATTACKS["inverting_gradients"](steps=300, tv=1e-4)(seen, model, derive(0))
    assert torch.equal(found.labels, batch.labels)
    assert psnr(found.images, batch.images).item() > 15  # by the one-step approximation; uniform noise is at 8


@pytest.mark.parametrize("name", ["dlg", "idlg"])
def test_a_gradient_that_is_faint_is_not_matched_by_any_image(name: str, batch: Batch, model: nn.Module) -> None:
    """A net that is sure of an image sends a small gradient: that must not look like a perfect match."""
    sure = deepcopy(model)
    with torch.no_grad():
        list(sure.parameters())[-1][batch.labels] += 9.0
    seen = observe(sure, batch)
    assert global_norm(seen.update.delta) < 1e-2
    found = ATTACKS[name](steps=300, restarts=3)(seen, sure, derive(0))
    assert psnr(found.images, batch.images).item() > 20
