"""What images are like before anything is observed: the second term of every attack."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from pydantic import ValidationError

from attacks.priors.base import Density, Prior
from attacks.priors.batchnorm import BatchNormStatistics, ClientStatistics
from attacks.priors.group import GroupConsistency
from attacks.priors.mixture import FittedMixture, Mixture
from attacks.priors.pixels import Clip, GaussianPixels, ImageL2
from attacks.priors.total_variation import TotalVariation
from attacks.priors.vae import VAE
from attacks.priors.worlds import dist_gaussian, dist_gmm
from fl_sim.core.errors import ConfigError, suggestion

__all__ = [
    "PRIORS",
    "VAE",
    "BatchNormStatistics",
    "ClientStatistics",
    "Clip",
    "Density",
    "FittedMixture",
    "GaussianPixels",
    "GroupConsistency",
    "ImageL2",
    "Mixture",
    "Prior",
    "TotalVariation",
    "dist_gaussian",
    "dist_gmm",
    "named",
]

PRIORS: Mapping[str, Callable[..., Prior]] = MappingProxyType(
    {
        "tv": TotalVariation,
        "clip": Clip,
        "gaussian": GaussianPixels,
        "l2": ImageL2,
        "batchnorm": BatchNormStatistics,
        "client_statistics": ClientStatistics,
        "group": GroupConsistency,
        "mixture": FittedMixture,
        "vae": VAE,
        "dist_gaussian": dist_gaussian,
        "dist_gmm": dist_gmm,
    }
)
"""Priors by name; their fields are their arguments."""


def named(specs: Iterable[Mapping[str, object] | str]) -> tuple[Prior, ...]:
    """Priors from ``{"name": ..., other fields}``, or a bare name, as a study gives them.

    Raises:
        ConfigError: No such prior, or fields that it does not take.
    """
    return tuple(_made({"name": spec} if isinstance(spec, str) else dict(spec)) for spec in specs)


def _made(fields: dict[str, object]) -> Prior:
    name = fields.pop("name", None)
    if not isinstance(name, str) or name not in PRIORS:
        near = suggestion(str(name), PRIORS)
        raise ConfigError(f"priors: expected a name among {', '.join(PRIORS)}, got {name!r}{near}")
    try:
        return PRIORS[name](**fields)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}" for e in error.errors()]
        raise ConfigError([f"prior {name}: {problem}" for problem in wrong]) from error
    except TypeError as error:
        raise ConfigError(f"prior {name}: {error}") from error
