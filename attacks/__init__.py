"""Attacks by name. To add one: write a preset, a line here, run ``make check``. Contract: fl_sim.core.contracts."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from attacks.analytic import r_gap, rank, ratio
from attacks.bayes import bayes, cosine, l1, l2
from attacks.classical import dlg, feature_inversion, grad_inversion, idlg, inverting_gradients
from attacks.generative import ggl, gias, gifd, gifd_e, gifd_f, gifd_z, gion
from fl_sim.core.contracts import Attack

ATTACKS: Mapping[str, Callable[..., Attack]] = MappingProxyType(
    {
        "bayes": bayes,
        "cosine": cosine,
        "dlg": dlg,
        "feature_inversion": feature_inversion,
        "ggl": ggl,
        "gias": gias,
        "gifd": gifd,
        "gifd_e": gifd_e,
        "gifd_f": gifd_f,
        "gifd_z": gifd_z,
        "gion": gion,
        "grad_inversion": grad_inversion,
        "idlg": idlg,
        "inverting_gradients": inverting_gradients,
        "l1": l1,
        "l2": l2,
        "r_gap": r_gap,
        "rank": rank,
        "ratio": ratio,
    }
)

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "analytic": "ratio",
        "csdlg": "inverting_gradients",
        "deepleakage": "dlg",
        "geiping": "inverting_gradients",
        "gi": "grad_inversion",
        "gradinversion": "grad_inversion",
        "gs": "inverting_gradients",
        "ig": "inverting_gradients",
        "invertinggradients": "inverting_gradients",
        "rgap": "r_gap",
        "seethroughgradients": "grad_inversion",
        "spear": "rank",
        "yin": "grad_inversion",
    }
)
"""Names that users of other tools know."""
