"""Projection onto the l1 ball against its definition."""

import pytest
import torch
from torch import Tensor

from attacks.variables.projection import onto_l1_ball
from fl_sim.core.seeds import derive


def slowly(vector: Tensor, radius: float) -> Tensor:
    """Shrink all entries by a threshold, found by bisection."""
    sizes = vector.abs().double()
    if sizes.sum() <= radius:
        return vector
    low, high = 0.0, sizes.max().item()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (sizes - middle).clamp_min(0).sum() > radius else (low, middle)
    return vector.sign() * (sizes - high).clamp_min(0).to(vector)


@pytest.mark.parametrize("radius", [1e-3, 0.5, 3.0, 1e4])
@pytest.mark.parametrize("size", [1, 7, 500])
def test_it_is_the_nearest_point(radius: float, size: int) -> None:
    vectors = 3 * torch.randn(4, size, generator=derive(0, size))
    found = onto_l1_ball(vectors, radius)
    assert (found.abs().sum(1) <= radius + 1e-5).all()
    assert torch.allclose(found, torch.stack([slowly(v, radius) for v in vectors]), atol=1e-5)


def test_what_is_inside_stays() -> None:
    vectors = torch.tensor([[0.1, -0.2, 0.0], [0.0, 0.0, 0.0]])
    assert torch.equal(onto_l1_ball(vectors, 0.5), vectors)


def test_equal_entries_share_alike() -> None:
    assert torch.allclose(onto_l1_ball(torch.full((1, 4), 2.0), 1.0), torch.full((1, 4), 0.25))
