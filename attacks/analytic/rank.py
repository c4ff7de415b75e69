"""Every image of a batch at once: a gradient of low rank, taken apart by what ReLU switched off."""

import math
import time
from typing import NamedTuple

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Generator, Tensor, nn

from attacks.analytic.first_layer import FirstLayer, first_linear_with_relu, nothing, pictures
from attacks.analytic.mixture import Mixture
from attacks.analytic.pairing import paired_labels
from attacks.analytic.ratio import input_of, nearest_rank_one
from attacks.analytic.sparse import distinct, independent, random_kernels, sparsest, zeros
from attacks.problem import Problem
from attacks.solvers.base import Clock
from fl_sim.core.contracts import Attack
from fl_sim.core.part import part
from fl_sim.core.types import Budget, Observation, Outcome, Reconstruction

_CHUNK = 64  # starts at once
_POOL = 4  # candidates kept for each image
_EXACT, _LOOSE = 1e-3, 0.1  # the mismatch of right directions, at most: without noise, and whatever the noise


class Unmixed(NamedTuple):
    """One direction an image ``(r, r)``, their mismatch in [0, 1], and how it ended after how many starts."""

    directions: Tensor
    mismatch: float
    outcome: Outcome
    starts: int


@part
class Rank(Attack):
    """The images of a batch behind a first fully connected layer with ReLU, exactly. SPEAR, arXiv 2403.03945.

    The layer's gradient is ``sum_i delta_i [x_i, 1]^T``, of rank N. Every ``delta_i`` is a combination of its left
    singular vectors that is zero on all units that image i leaves off: far more zeros than other combinations have. N
    of those give all images, each scaled by the input 1 of the biases.

    Args:
        samples: Random starts, at most, in chunks of 64; each is a combination that is zero on N - 1 random units.
        seconds: Time limit; ``None``: none.

    Ends as ``converged`` when the images found switch off the units where their gradients are zero: then they are
    right, up to what noise did to them. The loss is what N images leave of the gradient plus what those zeros
    contradict, both relative: below 1e-3 when exact. Noise of a few hundredths of the gradient's norm is borne for a
    few images, of a tenth is not; pruned entries are not. Local steps keep the rank: images are found as exactly, as
    long as few units change on the way. An image whose gradient is below 1e-6 of the others' leaves no trace: another
    one stands in its place. With ``converged`` each image has its own label, granted or not. For one image there is
    nothing to search, and the answer is that of :func:`attacks.analytic.ratio`.

    Differs from SPEAR: each start is taken to the nearest sparsest combination (reweighted least squares, in the place
    of the dictionary learning of SPEAR++, arXiv 2510.24200), where SPEAR waits for one that is right by chance, about
    ``2^(N-1) / N`` starts; sets of N are mended by exchange; zeros are judged by a noise level read off the spectrum.
    """

    samples: PositiveInt = 4096
    seconds: PositiveFloat | None = None

    def _check(self, seen: Observation, model: nn.Module) -> None:
        first_linear_with_relu(model, seen)

    def _reconstruct(self, seen: Observation, model: nn.Module, rng: Generator, device: str) -> Reconstruction:
        began = time.monotonic()
        names = first_linear_with_relu(model, seen)
        problem = Problem.of(seen, model, rng, device)
        layer = FirstLayer.of(problem, names)
        if not layer.says_something():
            return nothing(problem, began)
        mixture = Mixture.of(layer, seen.update.num_examples)
        found = self.unmix(mixture, _enough(mixture, seen), rng)
        pixels, deltas = mixture.images(found.directions)
        if len(pixels) == 1:
            pixels = input_of(nearest_rank_one(layer.gradient, missing=True))
        missing = seen.update.num_examples - len(pixels)
        outcome = Outcome.OUT_OF_STEPS if missing else found.outcome
        paired = outcome is Outcome.CONVERGED and len(pixels) > 1
        return Reconstruction(
            images=pictures(problem, torch.cat([pixels, pixels[:1].expand(missing, -1)])),
            labels=paired_labels(problem, names[1], pixels, deltas) if paired else problem.labels.cpu(),
            outcome=outcome,
            loss=mixture.misfit + found.mismatch,
            budget=Budget(iterations=found.starts, seconds=time.monotonic() - began, device=device),
        )

    def unmix(self, mixture: Mixture, enough: float, rng: Generator) -> Unmixed:
        """Gather candidates, and at 64, 128, ... starts look for those that go together, to a mismatch ``enough``."""
        rank, clock, look = mixture.left.shape[1], Clock(self.seconds), _CHUNK
        pool, only = mixture.left.new_zeros(0, rank), torch.eye(rank).to(mixture.left)
        best = Unmixed(only, float(mixture.mismatch(only)), Outcome.OUT_OF_STEPS, 0)
        if rank == 1:
            return best._replace(outcome=Outcome.CONVERGED)
        while best.starts < self.samples and not clock.over():
            pool = _with_more(pool, mixture, rng)
            best = best._replace(starts=best.starts + _CHUNK)
            if best.starts >= min(look, self.samples) or clock.over():
                look *= 2
                best = _better(best, pool, mixture, enough)
            if best.mismatch <= enough:
                return best._replace(outcome=Outcome.CONVERGED)
        return best._replace(outcome=Outcome.OUT_OF_TIME if clock.over() else Outcome.OUT_OF_STEPS)


def _enough(mixture: Mixture, seen: Observation) -> float:
    """The mismatch up to which directions are taken to be right.

    Noise makes unsure which units are off, and over several local steps some units change.
    """
    once = seen.update.kind == "gradient" or (
        seen.protocol is not None and seen.protocol.steps(seen.update.num_examples) == 1
    )
    return min(_EXACT + 3 * mixture.misfit, _LOOSE) if once else _LOOSE


def _with_more(pool: Tensor, mixture: Mixture, rng: Generator) -> Tensor:
    """The best candidates of ``pool`` ``(n, r)`` and of a chunk of new ones, most zeros first."""
    starts = random_kernels(mixture.left, _CHUNK, rng)
    pool = torch.cat([pool, sparsest(mixture.left, starts, mixture.noise), starts])
    pool = pool[zeros(mixture.left, pool, mixture.noise).sum(1).argsort(descending=True, stable=True)]
    return pool[distinct(pool)[: _POOL * pool.shape[1]]]


def _better(best: Unmixed, pool: Tensor, mixture: Mixture, enough: float) -> Unmixed:
    """The sparsest independent candidates, one put in another's place as long as the mismatch falls; or ``best``."""
    chosen = independent(pool)
    if len(chosen) < pool.shape[1]:
        return best
    directions, least, before = pool[chosen], float(mixture.mismatch(pool[chosen])), math.inf
    while enough < least < before:
        before = least
        for candidate in pool:
            trials = directions.expand(len(directions), -1, -1).clone()
            trials.diagonal(dim1=0, dim2=1).copy_(candidate[:, None])
            mismatch = mixture.mismatch(trials)
            if mismatch.min() < least:
                directions, least = trials[mismatch.argmin()], float(mismatch.min())
    return best._replace(directions=directions, mismatch=least) if least < best.mismatch else best


def rank(*, samples: int = 4096, seconds: float | None = None) -> Attack:
    """All images of a batch, exactly, from the first layer's gradient: needs the model mlp. After arXiv 2403.03945.

    On one CPU core and mlp's 256 units, 8 images take half a second, 24 take five. How it differs: see :class:`Rank`.
    """
    return Rank(samples=samples, seconds=seconds)
