"""Gradients of a layer as the product that they are, so that no one has to write it out."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fl_sim.core.types import Tensors


class Factors(NamedTuple):
    """``left @ right^T`` for each trial: what comes back of a linear map times what went in.

    Args:
        left: ``(T, out, rank)``.
        right: ``(T, in, rank)``; the rank is the number of places that share the weights: examples, times pixels.
        shape: Of the parameter, ``out * in`` entries.
    """

    left: Tensor
    right: Tensor
    shape: tuple[int, ...]

    def dense(self) -> Tensor:
        """``(T, *shape)``."""
        return (self.left @ self.right.transpose(1, 2)).view(len(self.left), *self.shape)

    def kept(self) -> "Tensor | Factors":
        """As factors where that is cheaper."""
        return self if thin(self.left.shape[1], self.right.shape[1], self.left.shape[2]) else self.dense()


def thin(out: int, wide: int, rank: int) -> bool:
    """Whether products of such factors cost less than half of the product itself."""
    return 2 * rank * (out + wide) <= out * wide


Tree: TypeAlias = Mapping[str, Tensor | Factors]
"""Parameter name to gradient, ``(T, *shape)``, in the model's own order."""


def dense(tree: Tree) -> Tensors:
    """Every gradient written out."""
    return {name: g.dense() if isinstance(g, Factors) else g for name, g in tree.items()}


def products(gradient: Tensor | Factors, target: Tensor) -> tuple[Tensor, Tensor]:
    """The inner product with ``target`` ``(*shape)``, or ``(T, *shape)``, and the sum of squares, each ``(T,)``.

    Differentiable once.
    """
    if isinstance(gradient, Factors):
        left, right = (factor.transpose(1, 2) @ factor for factor in (gradient.left, gradient.right))
        rows = target.reshape(-1, gradient.left.shape[1], gradient.right.shape[1])
        return (_times(rows, gradient.right) * gradient.left).sum((1, 2)), (left * right).sum((1, 2))
    rows = gradient.reshape(len(gradient), -1)
    inner, squares = _Products.apply(rows, target.reshape(-1, rows.shape[1]))
    return inner, squares


def _times(rows: Tensor, right: Tensor) -> Tensor:
    """``rows @ right``; a single column as a row from the left, which PyTorch's CPU kernel does four times as fast."""
    return (right.mT @ rows.mT).mT if right.shape[2] == 1 else rows @ right


class _Products(torch.autograd.Function):
    """Rows' inner products with targets, and their squares: two passes over the rows instead of six and back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(rows, targets)
        return (rows * targets).sum(1), torch.linalg.vector_norm(rows, dim=1).square()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, inner: Tensor, squares: Tensor) -> tuple[Tensor, None]:
        rows, targets = ctx.saved_tensors
        return torch.addcmul(inner[:, None] * targets, rows, 2 * squares[:, None]), None


def of_trials(tree: Tree, trials: slice) -> Tree:
    """Some of the trials."""
    if trials == slice(None):
        return tree
    return {
        name: Factors(g.left[trials], g.right[trials], g.shape) if isinstance(g, Factors) else g[trials]
        for name, g in tree.items()
    }
