"""The gradient's signal-to-noise ratio."""

import torch
from torch import Tensor

from experiments.risk.base import Exposure, Predictor
from fl_sim.core.part import part
from fl_sim.core.types import Batch


@part
class SignalToNoise(Predictor):
    """Squared norm of a record's part of the update over the noise's expected one, ``|g_i / N|^2 / (k s^2)``, in dB.

    k entries, noise of std s on each, by the defenses' density. The part is the record's own gradient as it is before
    the noise, clipped or pruned alone. Where parts cannot be told apart (local steps, batch statistics) every record
    has the whole update's. Ours; compare only within one network: wide layers add noise and signal alike.
    """

    def __call__(self, exposure: Exposure) -> Tensor:
        protocol, count = exposure.clean.protocol, len(exposure.batch.labels)
        power = exposure.noise.std**2 * sum(t.numel() for t in exposure.seen.update.delta.values())
        if count > 1 and protocol.mode == "fedsgd" and protocol.batchnorm == "eval":
            signal, images = exposure.signal.double(), torch.split(exposure.batch.images.double(), 1)
            parts = zip(images, torch.split(exposure.batch.labels, 1), strict=True)
            norms = torch.stack([signal(Batch(*part)).detach().norm() / count for part in parts])
        else:
            norms = exposure.before_noise.sent.norm().expand(count)
        return 10 * torch.log10(norms.square() / power)
