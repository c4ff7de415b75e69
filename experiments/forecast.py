"""What a study promises before anything is run: privacy loss, how loud its noise is, how near an adversary may come.

The figure for the last is a prediction, no bound: of a posterior mean linearised at public images instead of the truth,
whose prior is a Gaussian with the covariance of public images, and who knows the labels. A better prior comes nearer:
``bayes`` with total variation reached 33.1 and 26.3 dB on MNIST (cnn, std 0.003 and 0.01, three images) where 27.7 and
23.2 are predicted. So a low figure is no protection. What follows the noise is left out, which can only raise it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite, log10, prod, sqrt
from statistics import fmean
from typing import Any

import torch

from attacks.likelihoods.density import Stack
from defenses.clipping import Clip
from defenses.dpsgd import DpSgd
from experiments.build import Cell, ModelSpec
from experiments.knowledge import empty_observations
from experiments.linearised import MOST_PIXELS, Covariance, Linear, Signal, Spectrum, spectrum
from fl_sim.core.contracts import AnyDefense, Defense, ExampleDefense
from fl_sim.core.density import Normal
from fl_sim.core.errors import NoDensityError
from fl_sim.core.trees import size
from fl_sim.core.types import Batch, Observation, Protocol
from fl_sim.data.clients import ClientData
from fl_sim.federation.server import cohort_of
from fl_sim.metrics.accounting import DELTA, epsilon
from fl_sim.training.local import single_threaded

_PUBLIC = 2000  # images that tell how pixels go together
_SUPPOSED = Normal(1.0)  # where a stack adds no noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Of one cell; ``None`` where there is no such figure.

    Args:
        epsilon: As in :func:`experiments.report.table.summarise`, of the client that will take part most often.
        noise_over_clip: Norm of the noise, ``std sqrt(k)`` of k weights, over the longest that clipping leaves.
        noise_over_signal: The same over the norm of what the noise is added to, at public images.
        psnr: Predicted, in dB, mean over the points of linearisation.
        blind: The same of who sees no update.
        reason: Why ``psnr`` is missing.
    """

    cell: str
    epsilon: dict[str, Any] | None
    noise_over_clip: float | None
    noise_over_signal: float | None
    psnr: float | None
    blind: float
    reason: str = ""


def forecast(cell: Cell, data_dir: str | None, points: int = 3) -> Forecast:
    """Of a cell that has been checked, of its first client; linearised at ``points`` batches of public images."""
    job = cell.job(data_dir)
    (seen, _), *_ = empty_observations(cell, data_dir)
    blind = -10 * log10(_prior(cell.data(data_dir)).variance(seen.task.std))
    over_clip = noise_over_clip(job.defenses, job.protocol, seen)
    over_signal, psnr, reason = None, None, ""
    try:
        stack = _predictable(cell, job.defenses, seen, points)
        signal = (job.protocol, stack.join, tuple(defense for defense, _ in stack.before))
        assert isinstance(stack.noise, Normal)
        std = stack.noise.std
        found = _spectra(cell.model(seen.task), cell.data(data_dir), signal, seen.update.num_examples, points)
        over_signal = std * sqrt(size(seen.broadcast)) / fmean(one.norm for one in found)
        psnr = fmean(one.psnr(std) for one in found)
    except NoDensityError as error:
        reason = str(error)
    return Forecast(
        cell=cell.name,
        epsilon=planned_epsilon(cell, data_dir),
        noise_over_clip=over_clip,
        noise_over_signal=over_signal,
        psnr=psnr,
        blind=blind,
        reason=reason,
    )


def planned_epsilon(cell: Cell, data_dir: str | None) -> dict[str, Any] | None:
    """At the end, for the client that is drawn most often; ``None`` without differential privacy."""
    federation, one = cell.study.federation, cell.guarantee(data_dir)
    if one is None:
        return None
    size_, seed = federation.cohort or federation.clients, cell.study.seed
    rounds = range(1, federation.rounds + 1)
    drawn = Counter(client for n in rounds for client in cohort_of(federation.clients, size_, seed, n))
    most = epsilon(one.multiplier, one.steps * max(drawn.values()), rate=one.rate)
    return {"protects": one.protects, "against": one.against, "delta": DELTA, "most": most if isfinite(most) else None}


def noise_over_clip(defenses: Sequence[AnyDefense], protocol: Protocol, seen: Observation) -> float | None:
    """Of a round's update, or of a local step of DP-SGD; of the first noise after the clipping of a whole update."""
    images, bound = seen.update.num_examples, None
    for defense in defenses:
        if isinstance(defense, DpSgd):
            bound, images = defense.clip, min(images, protocol.batch_size)
        if isinstance(defense, Clip) and defense.scope == "global":
            bound, images = defense.norm, seen.update.num_examples
        noise = defense.noise(images) if isinstance(defense, (Defense, ExampleDefense)) else None
        if bound is not None and noise is not None:
            return noise.std * sqrt(size(seen.broadcast)) / bound
    return None


def _predictable(cell: Cell, defenses: Sequence[AnyDefense], seen: Observation, points: int) -> Stack:
    """A stack whose noise is Gaussian, of an update small enough.

    Raises:
        NoDensityError: It is not.
    """
    if not points:
        raise NoDensityError("not asked for")
    if cell.study.adversary.view == "aggregate":
        raise NoDensityError("only the sum of several updates is seen")
    stack = Stack.read(defenses, seen.update, {}, _SUPPOSED)
    if not isinstance(stack.noise, Normal) or stack.noise is _SUPPOSED:
        raise NoDensityError("no Gaussian noise")
    if seen.update.num_examples * prod(seen.task.image_shape) > MOST_PIXELS:
        raise NoDensityError(f"too many images in an update, {seen.update.num_examples}")
    return stack


@lru_cache(maxsize=4)
def _prior(data: ClientData) -> Covariance:
    return Covariance.fitted(data.public(_PUBLIC).images, data.task())


@lru_cache(maxsize=16)
def _spectra(
    model: ModelSpec,
    data: ClientData,
    signal: tuple[Protocol, ExampleDefense | None, tuple[Defense, ...]],
    images: int,
    points: int,
) -> tuple[Spectrum, ...]:
    """At public images; the same for all strengths of the noise."""
    public, task = data.public(points * images), data.task()
    parts = zip(torch.split(public.images, images), torch.split(public.labels, images), strict=True)
    with single_threaded():
        protocol, join, before = signal
        sent = Signal(model(), protocol, join, tuple((defense, {}) for defense in before))
        return tuple(
            spectrum(Linear.of(sent, Batch(*part), task), task, _prior(data), place=i)
            for i, part in enumerate(parts)
            if len(part[1]) == images
        )
