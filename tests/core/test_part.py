from dataclasses import FrozenInstanceError, fields
from typing import Any, Literal

import pytest
from pydantic import PositiveInt, ValidationError

from fl_sim.core.part import part


@part
class Knob:
    steps: PositiveInt
    kind: Literal["plain", "squared"] = "plain"


def test_a_part_is_its_fields() -> None:
    assert Knob(steps=3) == Knob(steps=3, kind="plain")
    assert Knob(steps=3) != Knob(steps=4)
    assert [f.name for f in fields(Knob)] == ["steps", "kind"]
    assert repr(Knob(steps=3)) == "Knob(steps=3, kind='plain')"


def test_a_part_is_frozen() -> None:
    knob = Knob(steps=3)
    with pytest.raises(FrozenInstanceError):
        knob.steps = 4  # type: ignore[misc]
    assert knob.steps == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 3, "step": 1}, "step\n.*[Uu]nexpected"),
        ({"steps": 0}, "greater than 0"),
        ({"steps": 1.5}, "valid integer"),
        ({"steps": 3, "kind": "cubed"}, "'plain' or 'squared'"),
        ({}, "missing|required"),
    ],
)
def test_a_part_refuses_what_it_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Knob(**options)


def test_a_part_takes_no_argument_by_position() -> None:
    with pytest.raises((TypeError, ValidationError)):
        Knob(3)  # type: ignore[call-arg]
