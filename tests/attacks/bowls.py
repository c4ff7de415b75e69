"""Problems whose minimum is known, for solvers."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attacks.solvers import Cost
from attacks.variables import Point

CURVATURE = torch.tensor([1.0, 3.0, 10.0])


@dataclass
class Recorded:
    """An objective that is its own score, and remembers what it was asked."""

    cost: Callable[[Tensor], Tensor]
    points: list[Tensor] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def __call__(self, point: Point, progress: float) -> Cost:
        cost = self.cost(point["x"])
        self.points.append(point["x"].detach().clone())
        self.scores.append(cost.min().item())
        return Cost(cost, cost)


def bowl(x: Tensor) -> Tensor:
    """Least, 0, at (1, 1, 1)."""
    return (CURVATURE * (x - 1).square()).sum(1)


def cliff(x: Tensor) -> Tensor:
    """A bowl on the left; high up on the right a slope that ends in NaN at 60."""
    return torch.where(x > 50, 100 + (x - 60).log(), (x - 1).square()).sum(1)


def anywhere(point: Point) -> Point:
    return point


def start(*rows: float) -> Point:
    return {"x": torch.tensor(rows)[:, None].expand(-1, 3).clone()}
