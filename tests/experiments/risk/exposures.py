"""Observations with their truth, as predictors are given them."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from defenses import DEFENSES
from experiments.linearised import Covariance, Signal
from experiments.risk import Exposure
from fl_sim.core.contracts import AnyDefense, Defense
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Protocol, Tensors
from fl_sim.training.local import State
from tests.attacks import zero
from tests.conftest import TASK, observe


def images(count: int) -> Batch:
    return Batch(torch.rand(count, *TASK.image_shape, generator=derive(0, "images")), torch.arange(count))


def zero_image() -> Batch:
    """One for device Z, whose label its residual wants."""
    return Batch(images(1).images, torch.tensor([zero.LABEL]))


def exposed(
    model: nn.Module,
    batch: Batch,
    *defenses: AnyDefense,
    protocol: Protocol | None = None,
    drawn: Tensors | None = None,
) -> Exposure:
    """Defended by those of ``defenses`` that work on updates; ``drawn`` of what these drew is granted."""
    protocol = protocol or Protocol(batch_size=len(batch.labels))
    seen = observe(model, batch, protocol)
    for defense in defenses:
        if isinstance(defense, Defense):
            seen = replace(seen, update=defense.protect(seen.update, derive(0, "noise")).update)
    start = State(seen.broadcast, seen.buffers)
    return Exposure(
        seen=seen,
        batch=batch,
        clean=Signal(model, protocol, start=start, order=(0, "order")),
        defenses=defenses,
        prior=Covariance.independent(64),
        drawn=drawn or {},
    )


def jacobian(exposure: Exposure) -> Tensor:
    """Of the undefended gradient in normalised pixels, ``(k, N d)``, column by column: slow and plain."""
    linear = exposure.undefended
    width = exposure.batch.images.numel()
    return torch.stack([linear.push(row) for row in torch.eye(width, dtype=torch.float64)], 1)


def named(name: str, **arguments: object) -> AnyDefense:
    return DEFENSES[name](**arguments)
