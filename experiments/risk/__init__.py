"""Risk without an attack: cheap figures for each record, to stand beside the leakage that attacks measure."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from experiments.risk.base import Exposure, Predictor
from experiments.risk.influence import InfluenceBound, InversionInfluence
from experiments.risk.posterior import LinearisedPosterior
from experiments.risk.signal import SignalToNoise

__all__ = [
    "PREDICTORS",
    "Exposure",
    "InfluenceBound",
    "InversionInfluence",
    "LinearisedPosterior",
    "Predictor",
    "SignalToNoise",
]

PREDICTORS: Mapping[str, Callable[..., Predictor]] = MappingProxyType(
    {
        "k15": LinearisedPosterior,
        "i2f": InversionInfluence,
        "i2f_bound": InfluenceBound,
        "snr": SignalToNoise,
    }
)
"""Predictors by name; their fields are their arguments."""
