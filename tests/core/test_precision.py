"""Attacks multiply exactly, and leave the settings as they were."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from fl_sim.core.precision import exact_products

BACKENDS: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)


@pytest.fixture(params=[True, False])
def allowed(request: pytest.FixtureRequest) -> Iterator[bool]:
    """TF32, allowed or not, for the length of a test."""
    before = [backend.allow_tf32 for backend in BACKENDS]
    for backend in BACKENDS:
        backend.allow_tf32 = request.param
    yield request.param
    for backend, value in zip(BACKENDS, before, strict=True):
        backend.allow_tf32 = value


def fails() -> None:
    with exact_products():
        assert [backend.allow_tf32 for backend in BACKENDS] == [False, False]
        raise RuntimeError("an attack that fails")


def test_exact_inside_and_as_before_afterwards(allowed: bool) -> None:
    with pytest.raises(RuntimeError, match="an attack that fails"):
        fails()
    assert [backend.allow_tf32 for backend in BACKENDS] == [allowed, allowed]
