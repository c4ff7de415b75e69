"""Threat models by their letters."""

from typing import Any

import pytest

from experiments.report.letters import capabilities

Adversary = dict[str, Any]
LEAST: Adversary = {"view": "client", "labels": False, "protocol": False, "defense": "unknown"}
PRIOR = [{"name": "gifd", "generator": "runs/mnist.safetensors"}]


@pytest.mark.parametrize(
    ("adversary", "attacks", "batchnorm", "letter", "lacks"),
    [
        (LEAST, [], "eval", "B", []),
        ({**LEAST, "protocol": True}, [], "eval", "C", []),
        (LEAST, PRIOR, "eval", "D", ["training details"]),
        ({**LEAST, "protocol": True}, [], "train", "E", ["surrogate data"]),
        ({**LEAST, "labels": True, "defense": "kind"}, [], "eval", "B", []),
    ],
    ids=["least", "protocol", "prior", "batch statistics", "without letters"],
)
def test_the_weakest_letter_that_has_all_that_is_granted(
    adversary: Adversary, attacks: list[dict[str, Any]], batchnorm: str, letter: str, lacks: list[str]
) -> None:
    found = capabilities({"adversary": adversary, "attacks": attacks, "federation": {"batchnorm": batchnorm}})
    assert (found.letter, found.lacks) == (letter, lacks)


def test_what_has_no_letter_is_said_beside_it() -> None:
    found = capabilities({"adversary": {**LEAST, "labels": True, "defense": "kind"}, "attacks": []})
    assert found.beyond == ["labels (true labels of the batch, order aside)", "the defense (kind)"]


def test_what_a_grid_varies_counts_where_any_setting_grants_it() -> None:
    grid = {"adversary.protocol": [False, True]}
    found = capabilities({"adversary": LEAST, "attacks": [], "grid": grid})
    (row,) = [row for row in found.table if row.name == "training details"]
    assert (found.letter, row.granted) == ("C", "in some settings")
