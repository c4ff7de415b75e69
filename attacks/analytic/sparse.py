"""The sparsest directions of a tall matrix: which combinations of its columns are zero on many rows."""

import torch
from torch import Generator, Tensor

_STEPS = 60  # reweighted least squares, by the end of which the smoothing is 1e-4 of an entry's mean
_DECAY = 0.85
_FLOOR = 1e-7  # of the smoothing
_ZERO = 1e-5  # of a combination's largest entry: less is a zero


def random_kernels(matrix: Tensor, count: int, rng: Generator) -> Tensor:
    """``(count, r)`` unit vectors, each with ``matrix @ q = 0`` on ``r - 1`` random rows of ``matrix`` ``(m, r)``."""
    rank = matrix.shape[1]
    rows = torch.rand(count, len(matrix), generator=rng).topk(rank - 1).indices
    kernels: Tensor = torch.linalg.svd(matrix[rows.to(matrix.device)]).Vh[:, -1]
    return kernels


def sparsest(matrix: Tensor, start: Tensor, noise: Tensor) -> Tensor:
    """From each start ``(n, r)`` down to a nearby unit ``q`` of least ``|matrix @ q|_1``.

    Least squares with weights ``1 / |entry|``, smoothed less and less; then once more on the zeros alone, which makes
    it as exact as ``matrix`` is. For ``noise`` see :func:`zeros`.
    """
    directions, smooth = start, torch.full((len(start), 1), torch.inf, device=start.device, dtype=start.dtype)
    for _ in range(_STEPS):
        size = (directions @ matrix.T).abs()
        smooth = torch.minimum(_DECAY * smooth, size.mean(1, keepdim=True)).clamp_min(_FLOOR)
        directions = _least(matrix, (size.square() + smooth.square()).rsqrt())
    return _least(matrix, zeros(matrix, directions, noise).to(matrix))


def _least(matrix: Tensor, weights: Tensor) -> Tensor:
    """The unit vectors ``(n, r)`` of least ``sum_i w_i (matrix @ q)_i^2``, for weights ``(n, m)``."""
    squares = (matrix.T * weights[:, None, :]) @ matrix
    vectors: Tensor = torch.linalg.eigh(squares).eigenvectors[:, :, 0]
    return vectors


def zeros(matrix: Tensor, directions: Tensor, noise: Tensor) -> Tensor:
    """Which entries of ``matrix @ q`` are zero up to noise, ``(n, m)``, for ``directions`` ``(n, r)``.

    Args:
        noise: ``(r,)``, the standard deviation of the noise on each of the matrix's columns.
    """
    size = (directions @ matrix.T).abs()
    spread = (directions * noise).norm(dim=1, keepdim=True)
    return size <= torch.maximum(_ZERO * size.amax(1, keepdim=True), 3 * spread)


def distinct(directions: Tensor) -> Tensor:
    """Indices of the first of each group of (nearly) parallel unit vectors ``(n, r)``."""
    alike = (directions @ directions.T).abs() > 1 - 1e-5
    return (alike.long().cumsum(1).diagonal() == 1).nonzero()[:, 0]


def independent(directions: Tensor) -> list[int]:
    """Indices of the first directions ``(n, r)`` that span what all of them do, each well off the ones before it."""
    chosen = list[int]()
    basis = directions.new_zeros(0, directions.shape[1])
    for i, direction in enumerate(directions):
        rest = direction - (direction @ basis.T) @ basis
        if rest.norm() > 1e-2:
            basis = torch.cat([basis, (rest / rest.norm())[None]])
            chosen.append(i)
        if len(chosen) == directions.shape[1]:
            break
    return chosen
