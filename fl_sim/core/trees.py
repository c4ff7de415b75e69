"""Arithmetic on named tensors."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from fl_sim.core.types import Tensors


def global_norm(tree: Tensors) -> Tensor:
    """L2 norm of all tensors as one vector; a scalar."""
    return torch.stack([t.square().sum() for t in tree.values()]).sum().sqrt()


def size(tree: Tensors) -> int:
    """Number of entries of all tensors."""
    return sum(t.numel() for t in tree.values())


def flat(tree: Tensors) -> Tensor:
    """All tensors as one vector ``(k,)``, in the tree's own order."""
    return torch.cat([t.reshape(-1) for t in tree.values()])


def map_tree(function: Callable[[Tensor], Tensor], tree: Tensors) -> Tensors:
    return {name: function(t) for name, t in tree.items()}


def add(tree: Tensors, other: Tensors, factor: float = 1.0) -> Tensors:
    """``tree + factor * other``, by name."""
    return {name: t + factor * other[name] for name, t in tree.items()}


def subtract(tree: Tensors, other: Tensors) -> Tensors:
    return {name: t - other[name] for name, t in tree.items()}


def scale(tree: Tensors, factor: float | Tensor) -> Tensors:
    return {name: t * factor for name, t in tree.items()}


def add_normal(tree: Tensors, std: float, rng: Generator) -> Tensors:
    """Independent N(0, std^2) on every entry; ``rng`` is a CPU generator, so the noise is the same on every device."""
    return {name: t + std * torch.randn(t.shape, generator=rng, dtype=t.dtype).to(t.device) for name, t in tree.items()}
