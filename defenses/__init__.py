"""Defenses by name. To add one: write it, give it a line here, run ``make check``. Contract: fl_sim.core.contracts."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from defenses.ats import Ats
from defenses.clipping import Clip
from defenses.dpsgd import DpSgd
from defenses.low_rank import PowerSgd, Sketch
from defenses.mixing import InstaHide, Mixup
from defenses.noise import Gaussian, Laplace
from defenses.precode import Precode
from defenses.quantization import Quantize, SignSgd
from defenses.soteria import Soteria
from defenses.sparsification import RandomPrune, TopK
from fl_sim.core.contracts import AnyDefense

DEFENSES: Mapping[str, Callable[..., AnyDefense]] = MappingProxyType(
    {
        "ats": Ats,
        "clip": Clip,
        "dpsgd": DpSgd,
        "gaussian": Gaussian,
        "instahide": InstaHide,
        "laplace": Laplace,
        "mixup": Mixup,
        "powersgd": PowerSgd,
        "precode": Precode,
        "quantize": Quantize,
        "random_prune": RandomPrune,
        "signsgd": SignSgd,
        "sketch": Sketch,
        "soteria": Soteria,
        "topk": TopK,
    }
)
"""``none`` is not here: a study without defenses is undefended."""
