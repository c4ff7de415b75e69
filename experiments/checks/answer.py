"""What a check answers."""

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """A measured figure and the bounds it must lie in; ``expected`` says where they come from."""

    figure: float
    low: float
    high: float
    expected: str


def near(figure: float, expected: float, tolerance: float, why: str) -> Answer:
    """``figure`` is to be ``expected``, give or take ``tolerance``."""
    return Answer(figure, expected - tolerance, expected + tolerance, why)


@dataclass(frozen=True)
class Check:
    """One check that was run."""

    name: str
    figure: float
    low: float
    high: float
    expected: str
    passed: bool
    seconds: float

    def __str__(self) -> str:
        bounds = f"[{self.low:.6g}, {self.high:.6g}]"
        return f"{self.name}: {self.figure:.6g} in {bounds} ({self.expected}), {self.seconds:.2f} s"

    def as_dict(self) -> dict[str, Any]:
        figures = {"figure": self.figure, "low": self.low, "high": self.high}
        return {**asdict(self), **{k: v if math.isfinite(v) else None for k, v in figures.items()}}
