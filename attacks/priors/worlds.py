"""The exact priors of the synthetic data sets ``dist_gaussian`` and ``dist_gmm`` (arXiv 2111.04706)."""

from typing import Annotated

from pydantic import Field, NonNegativeFloat, validate_call

from attacks.priors.mixture import Mixture
from attacks.priors.pixels import GaussianPixels

_AWAY = 2.0  # of each mean from 0, along one of the first two axes


def dist_gaussian(weight: NonNegativeFloat = 1.0) -> GaussianPixels:
    """``N(0, I)`` over normalised images: what ``data.name = "dist_gaussian"`` draws from."""
    return GaussianPixels(weight=weight)


@validate_call
def dist_gmm(dim: Annotated[int, Field(ge=2)] = 64, weight: NonNegativeFloat = 1.0) -> Mixture:
    """Four equal unit Gaussians over normalised images, of what ``data.name = "dist_gmm"`` draws from.

    Args:
        dim: Pixels of an image, at least 2: the squared ``data.image_size``. Means are (+-2, 0) and (0, +-2) in the
            first two; 0 in the others.
        weight: Of the term; 1 is the density itself.
    """
    rest = (0.0,) * (dim - 2)
    means = [(x, y, *rest) for x, y in ((_AWAY, 0.0), (-_AWAY, 0.0), (0.0, _AWAY), (0.0, -_AWAY))]
    return Mixture.isotropic(means, std=1.0, weight=weight)
