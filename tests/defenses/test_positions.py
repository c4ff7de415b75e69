"""Positions in few bits."""

import math

import pytest
import torch

from defenses.positions import coded, decoded, length
from fl_sim.core.seeds import derive


@pytest.mark.parametrize(("count", "size"), [(0, 5), (1, 1), (1, 1000), (5, 5), (7, 8), (100, 10_000), (333, 1001)])
def test_they_come_back(count: int, size: int) -> None:
    positions = torch.randperm(size, generator=derive(0, count))[:count].sort().values
    code = coded(positions, size)
    assert len(code) == length(count, size)
    assert torch.equal(decoded(code, count, size), positions)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.3])
def test_they_take_hardly_more_than_they_say(share: float) -> None:
    """``log2`` of the number of choices; half a bit each is Elias-Fano's own excess."""
    size = 100_000
    count = round(share * size)
    choices = math.lgamma(size + 1) - math.lgamma(count + 1) - math.lgamma(size - count + 1)
    assert 8 * length(count, size) <= choices / math.log(2) + 0.8 * count + 64


def test_what_is_no_code_is_refused() -> None:
    code = coded(torch.tensor([1, 5, 9]), 12)
    with pytest.raises(ValueError, match="bytes"):
        decoded(code[:-1], 3, 12)
    with pytest.raises(ValueError, match="positions"):
        decoded(torch.zeros_like(code), 3, 12)
