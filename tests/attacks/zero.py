"""Device Z of specs/bayes.md: softmax regression with zero weights, whose gradient is linear in the image.

The residual ``r = 1/K - onehot(label)`` does not depend on the image, and the weight gradient is ``r x^T`` with ``x``
the normalised image: so posteriors have closed forms.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from defenses.noise import Gaussian
from fl_sim import models
from fl_sim.core.knowledge import DefenseKnowledge, Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Observation
from tests.conftest import TASK, observe

LABEL = 4


def net() -> nn.Module:
    return models.build("softmax", TASK, 0)


def noisy(std: float) -> Observation:
    """The gradient of one image in [0.3, 0.7] under Gaussian noise; label and mechanism are granted."""
    image = 0.3 + 0.4 * torch.rand(1, *TASK.image_shape, generator=derive(0, "zero"))
    seen = observe(net(), Batch(image, torch.tensor([LABEL])))
    defense = Gaussian(std=std)
    known = Knowledge(labels=torch.tensor([LABEL]), defense_level=DefenseKnowledge.PARAMETERS, defenses=(defense,))
    return replace(seen, update=defense.protect(seen.update, derive(0, "noise")).update, knowledge=known)


def residual() -> Tensor:
    return torch.full((10,), 0.1) - one_hot(torch.tensor(LABEL), 10)


def least_squares(seen: Observation) -> Tensor:
    """``g_W^T r / |r|^2``: the normalised image of least squared error, ``(1, 8, 8)``."""
    r = residual()
    return (seen.update.delta["net.head.weight"].T @ r / r.square().sum()).view(TASK.image_shape)


def pixels(normalised: Tensor) -> Tensor:
    return TASK.mean[0] + TASK.std[0] * normalised
