"""Whole images as draws from a mixture of Gaussians: given exactly, or fitted to public images."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar, NamedTuple

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from attacks.priors.base import Density, normalised
from attacks.priors.stored import About, FittedPrior, Kind, current, read
from attacks.problem import Problem
from attacks.stored import Version
from fl_sim.core.errors import ConfigError
from fl_sim.core.part import part
from fl_sim.core.types import Observation


class Components(NamedTuple):
    """K Gaussians over vectors of d entries.

    ``(x - means[k]) @ factors[k]`` is white for ``x`` of component k; the precision is ``factors[k] @ factors[k].T``.
    """

    log_weights: Tensor  # (K,), of weights that sum to 1
    means: Tensor  # (K, d)
    factors: Tensor  # (K, d, d) triangular with a positive diagonal, or (K,): 1 / std of equal, independent entries


def log_density(vectors: Tensor, mixture: Components) -> Tensor:
    """``log p`` ``(M,)`` of vectors ``(M, d)``, in nats, with every constant."""
    away, factors = vectors[:, None] - mixture.means, mixture.factors
    if factors.dim() == 1:
        white, log_determinant = away * factors[:, None], away.shape[2] * factors.log()
    else:
        white = torch.einsum("mki,kij->mkj", away, factors)
        log_determinant = factors.diagonal(dim1=1, dim2=2).log().sum(1)
    constant = mixture.log_weights + log_determinant - away.shape[2] / 2 * math.log(2 * math.pi)
    return torch.logsumexp(constant - white.square().sum(2) / 2, 1)


@part
class Mixture(Density):
    """Isotropic Gaussians over the whole normalised image, given exactly: for worlds whose distribution is known.

    Args:
        means: K vectors of ``C*H*W`` normalised pixels.
        stds: K standard deviations, in normalised units.
        weights: K probabilities, up to a common factor.
    """

    means: tuple[tuple[float, ...], ...]
    stds: tuple[PositiveFloat, ...]
    weights: tuple[PositiveFloat, ...]

    def __post_init__(self) -> None:
        counts = (len(self.means), len(self.stds), len(self.weights))
        if len(set(counts)) > 1 or len({len(mean) for mean in self.means}) != 1:
            raise ConfigError(
                f"a mixture needs as many means of one length as stds and weights, got {counts[0]} means of lengths "
                f"{sorted({len(mean) for mean in self.means})}, {counts[1]} stds, {counts[2]} weights: make them match"
            )

    @classmethod
    def isotropic(
        cls, means: Sequence[Sequence[float]], std: float, weights: Sequence[float] = (), weight: float = 1.0
    ) -> "Mixture":
        """One ``std`` for all components; equal weights where none are given. ``weight`` is that of the term."""
        return cls(
            means=tuple(map(tuple, means)),
            stds=(std,) * len(means),
            weights=tuple(weights) or (1.0,) * len(means),
            weight=weight,
        )

    def check(self, seen: Observation, model: nn.Module) -> None:
        del model
        if (entries := math.prod(seen.task.image_shape)) != len(self.means[0]):
            raise ConfigError(
                f"a mixture of vectors of {len(self.means[0])} entries needs as many pixels and channels, got images "
                f"(C, H, W) = {seen.task.image_shape}: give means of {entries} entries (dist_gmm: dim = {entries})"
            )

    def log_density(self, images: Tensor, problem: Problem) -> Tensor:
        vectors = normalised(images, problem).flatten(1)
        weights, means, stds = (vectors.new_tensor(values) for values in (self.weights, self.means, self.stds))
        return log_density(vectors, Components((weights / weights.sum()).log(), means, 1 / stds))


@part
class FittedMixture(FittedPrior):
    """A full-covariance Gaussian, or a mixture of them, fitted to public images by ``fl-sim train-prior``."""

    kinds: ClassVar[tuple[Kind, ...]] = ("gaussian", "mixture")

    def log_density(self, images: Tensor, problem: Problem) -> Tensor:
        del problem
        mixture, about = _loaded(current(self.path), str(images.device))
        return log_density(about.vectors(images), mixture)


@lru_cache(maxsize=4)
def _loaded(version: Version, device: str) -> tuple[Components, About]:
    tensors, about = read(version, FittedMixture.kinds)
    return Components(*(tensors[name].to(device) for name in Components._fields)), about
