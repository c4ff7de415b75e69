"""Parts of a study that are named: models, defenses, attacks."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A named model, attack or defense; every other key is an argument of its factory."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    @property
    def arguments(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    def __str__(self) -> str:
        arguments = ", ".join(f"{k}={v}" for k, v in self.arguments.items())
        return f"{self.name}({arguments})" if arguments else self.name


class AttackPart(Part):
    """An attack and how it is set.

    ``label`` tells two settings of one attack apart. ``only`` lists the defenses it is run against; all where it is
    empty. ``tuned`` holds other arguments for the defense named; ``tune`` holds values for ``fl-sim tune`` to try,
    argument by argument. ``joint``: a client's observations of this and all earlier attacked rounds are fitted
    together, as if its images were the same in each. A defense is named as in reports: ``gaussian(std=0.1)``, stacks
    with `` + ``.
    """

    label: str = ""
    only: list[str] = []
    tuned: dict[str, dict[str, Any]] = {}
    tune: dict[str, list[Any]] = {}
    joint: bool = False

    def against(self, defense: str) -> "AttackPart":
        """As it is set where this is the defense."""
        tuned = next((v for k, v in self.tuned.items() if canonical(k) == canonical(defense)), {})
        return AttackPart(name=self.name, label=self.label, joint=self.joint, **{**self.arguments, **tuned})

    def meets(self, defense: str) -> bool:
        """Whether it is run against this defense."""
        return not self.only or canonical(defense) in map(canonical, self.only)

    def key(self) -> str:
        return self.label or self.name

    def files(self) -> set[str]:
        """Paths among its arguments, of files that are there, and those of bundled generators that it names."""
        from attacks.generators.stored import place

        arguments = [self.arguments, *self.tuned.values()]
        named = {place(str(given["generator"])) for given in arguments if "generator" in given}
        return {text for text in [*_texts(arguments), *named] if Path(text).is_file()}


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for below in value.values() if isinstance(value, dict) else value:
            yield from _texts(below)


def canonical(defense: str) -> str:
    """A stack's name with each mechanism's arguments in one order."""
    return " + ".join(re.sub(r"\((.*)\)$", _sorted, mechanism) for mechanism in defense.split(" + "))


def _sorted(arguments: re.Match[str]) -> str:
    return f"({', '.join(sorted(arguments[1].split(', ')))})"


def part(value: object) -> object:
    """A bare name is a part without arguments."""
    return {"name": value} if isinstance(value, str) else value


def parts(value: object) -> list[object]:
    """One part or several; ``none`` is no part at all."""
    items = value if isinstance(value, list) else [value]
    return [p for p in map(part, items) if p != {"name": "none"}]
