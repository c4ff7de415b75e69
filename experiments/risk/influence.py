"""Inversion influence functions: what the perturbation that was made does to the best match (arXiv 2309.13016)."""

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from experiments.linearised import STEPS, Krylov, Linear, lanczos
from experiments.risk.base import Exposure, Predictor, decibels
from fl_sim.core.part import part
from fl_sim.core.types import Task


@part
class InversionInfluence(Predictor):
    """I2F: PSNR of ``x + (J^T J + e)^-1 J^T shift``, where least squares would go after all that defenses did.

    J is the Jacobian of the undefended update at the truth, ``shift`` the received update minus it: noise as it was
    drawn, and also pruning, clipping, rounding. No prior, no box, no knowledge of the defense.

    Args:
        damping: e over the largest eigenvalue of ``J^T J``.
        steps: Of Lanczos from ``J^T shift``, which stand for the conjugate gradients of as many.

    Differs from the paper (arXiv 2309.13016), which writes J for our transpose: its code adds an absolute e (1 by
    default), ours scales with the network; it gives one norm for all that is inverted, we one error an image, in dB.
    """

    damping: PositiveFloat = 1e-3
    steps: PositiveInt = STEPS

    def __call__(self, exposure: Exposure) -> Tensor:
        linear = exposure.undefended
        if not (pulled := linear.pull(exposure.shift)).any():
            return decibels(torch.zeros(linear.shape[0]))
        found = lanczos(linear.information, pulled, self.steps)
        moved = (found.parts / (found.nodes + self.damping * found.nodes[-1])) @ found.vectors
        return decibels(_errors(moved, linear, exposure.seen.task))


@part
class InfluenceBound(Predictor):
    """I2F's lower bound on the error as PSNR: ``J^T shift`` over the largest eigenvalue of ``J^T J``; a few products.

    Of a batch it bounds the error of all images together; each is given its own part of the vector.

    Args:
        steps: Of Lanczos for the eigenvalue; the paper (arXiv 2309.13016) uses power iteration.
    """

    steps: PositiveInt = 16

    def __call__(self, exposure: Exposure) -> Tensor:
        linear = exposure.undefended
        if not (pulled := linear.pull(exposure.shift)).any():
            return decibels(torch.zeros(linear.shape[0]))
        found: Krylov = lanczos(linear.information, pulled, self.steps)
        return decibels(_errors(pulled / found.nodes[-1], linear, exposure.seen.task))


def _errors(moved: Tensor, linear: Linear, task: Task) -> Tensor:
    """Mean square of each image's shift, given in normalised pixels, on [0, 1]."""
    std = torch.tensor(task.std, dtype=moved.dtype).view(-1, 1, 1)
    return (std * moved.view(linear.shape)).square().flatten(1).mean(1)
