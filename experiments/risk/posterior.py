"""The linearised posterior, K15 of the self-test."""

from statistics import fmean

import torch
from pydantic import PositiveInt
from torch import Tensor

from experiments.linearised import STEPS, spectrum
from experiments.risk.base import Exposure, Predictor, decibels
from fl_sim.core.part import part


@part
class LinearisedPosterior(Predictor):
    """K15: PSNR of the Bayes-optimal guess in a linearised world, ``tr[(J^T J / s^2 + P)^-1] / d`` of the record.

    J is the Jacobian at the truth of what the noise of std s is added to; P the prior precision, of a Gaussian with the
    covariance of public images (arXiv 2111.04706's adversary with a Gaussian prior; arXiv 2411.03746 bounds alike).

    Args:
        probes: Random vectors for the trace, the same for every record so that records compare.
        steps: Of Lanczos for each; too few promise too high a PSNR.

    No bound where the network bends within the posterior, where a better prior is to be had, or where the truth is not
    typical of the prior. Labels are taken as known. A pruning mask counts as known where it is granted; else, as if
    known, by what it leaves on average: too high a PSNR. Noise that is not Gaussian counts by its variance, as it does
    for the best linear guess; what follows the noise (rounding) is left out.
    """

    probes: PositiveInt = 2
    steps: PositiveInt = STEPS

    def __call__(self, exposure: Exposure) -> Tensor:
        linear, std, task = exposure.before_noise, exposure.noise.std, exposure.seen.task
        errors = [
            fmean(
                spectrum(linear, task, exposure.prior, self.steps, place, image).error(std)
                for place in range(self.probes)
            )
            for image in range(len(exposure.batch.labels))
        ]
        return decibels(torch.tensor(errors))
