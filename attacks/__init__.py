"""Attacks by name. To add one: write a preset, a line here, run ``make check``. Contract: fl_sim.core.contracts."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from attacks.analytic import ratio
from attacks.bayes import bayes
from attacks.classical import dlg, inverting_gradients
from fl_sim.core.contracts import Attack

ATTACKS: Mapping[str, Callable[..., Attack]] = MappingProxyType(
    {
        "bayes": bayes,
        "dlg": dlg,
        "inverting_gradients": inverting_gradients,
        "ratio": ratio,
    }
)

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "csdlg": "inverting_gradients",
        "deepleakage": "dlg",
        "geiping": "inverting_gradients",
        "ig": "inverting_gradients",
        "invertinggradients": "inverting_gradients",
    }
)
"""Names that users of other tools know."""
