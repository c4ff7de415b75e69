"""What makes two linear maps each other's transposes."""

import torch

from attacks.gradients.operators import LinearMap


def assert_adjoint(linear: LinearMap, shape: tuple[int, ...]) -> None:
    """``<A x, y> = <x, A^T y>`` for ``x`` of ``shape``."""
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(shape, generator=rng, dtype=torch.float64)
    outputs = linear.forward(inputs)
    other = torch.randn(outputs.shape, generator=rng, dtype=torch.float64)
    assert torch.allclose((outputs * other).sum(), (inputs * linear.adjoint(other)).sum(), rtol=1e-9)
