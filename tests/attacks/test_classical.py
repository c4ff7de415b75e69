"""Presets on what the conformance tests do not try: batches and several local steps."""

import pytest
import torch
from torch import nn

from attacks import ATTACKS
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Protocol
from fl_sim.metrics.image import psnr
from fl_sim.metrics.matching import match
from tests.conftest import TASK, observe


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
