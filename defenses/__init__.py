"""Defenses by name. To add one: write it, give it a line here, run ``make check``. Contract: fl_sim.core.contracts."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from defenses.noise import Gaussian
from defenses.quantization import Quantize
from defenses.sparsification import TopK
from fl_sim.core.contracts import AnyDefense

DEFENSES: Mapping[str, Callable[..., AnyDefense]] = MappingProxyType(
    {
        "gaussian": Gaussian,
        "topk": TopK,
        "quantize": Quantize,
    }
)
"""``none`` is not here: a study without defenses is undefended."""
