"""Which attacks the report says know the defense."""

from types import SimpleNamespace
from typing import Any

import pytest

from experiments.build import cells
from experiments.config import load_dict
from experiments.present import adaptive

CASES: dict[str, tuple[str, list[dict[str, Any]], bool]] = {
    "unknown": ("unknown", [{"name": "gaussian", "std": 0.1}], False),
    "kind": ("kind", [{"name": "gaussian", "std": 0.1}], True),
    "parameters": ("parameters", [{"name": "gaussian", "std": 0.1}], True),
    "sketch, parameters": ("parameters", [{"name": "sketch", "ratio": 0.5}], True),
    "sketch, kind": ("kind", [{"name": "sketch", "ratio": 0.5}], False),
    "error feedback": ("kind", [{"name": "topk", "keep": 0.1, "feedback": True}], False),
}


@pytest.mark.parametrize("case", CASES)
def test_an_attack_knows_a_defense_that_it_can_use_as_far_as_it_is_granted(case: str) -> None:
    """Of a kind alone, where its parameters can be estimated; ``l2`` never."""
    level, defenses, known = CASES[case]
    tree = {"name": "x", "adversary": {"defense": level}, "attacks": [{"name": "l2"}, {"name": "bayes"}]}
    grid = cells(load_dict({**tree, "defenses": defenses}, "here"))
    run: Any = SimpleNamespace(cells=grid, data_dir=None)
    assert adaptive(run) == ([("base", "bayes")] if known else [])
