"""Where the entries that are sent were, in few bits: Elias-Fano coding (Elias 1974, Fano 1971)."""

import numpy as np
import torch
from torch import Tensor


def coded(positions: Tensor, size: int) -> Tensor:
    """Ascending positions ``(k,)`` below ``size`` as bytes: about ``2 + log2(size / k)`` bits each.

    The low bits of each as they are, the high bits in unary: ones, a zero where the next value begins.
    """
    count, bits = len(positions), _low_bits(len(positions), size)
    if not count:
        return torch.empty(0, dtype=torch.uint8)
    values = positions.numpy().astype(np.int64)
    unary = np.zeros(_cells(count, size), np.uint8)
    unary[(values >> bits) + np.arange(count)] = 1
    low = (values[:, None] >> np.arange(bits)) & 1
    return torch.from_numpy(np.concatenate([np.packbits(unary), np.packbits(low.astype(np.uint8))]))


def decoded(code: Tensor, count: int, size: int) -> Tensor:
    """``count`` positions below ``size``, int64.

    Raises:
        ValueError: The bytes are not the code of so many.
    """
    if len(code) != length(count, size):
        raise ValueError(f"expected {length(count, size)} bytes for {count} positions below {size}, got {len(code)}")
    if not count:
        return torch.empty(0, dtype=torch.int64)
    bits, cells, packed = _low_bits(count, size), _cells(count, size), code.numpy()
    first = -(-cells // 8)
    high = np.flatnonzero(np.unpackbits(packed[:first], count=cells))
    if len(high) != count:
        raise ValueError(f"expected {count} positions, got {len(high)}")
    low = np.unpackbits(packed[first:], count=count * bits).reshape(count, bits).astype(np.int64)
    values = ((high - np.arange(count)) << bits) + low @ (1 << np.arange(bits))
    if values.max() >= size or (np.diff(values) <= 0).any():
        raise ValueError(f"expected ascending positions below {size}, got others, up to {values.max()}")
    return torch.from_numpy(values)


def length(count: int, size: int) -> int:
    """Bytes of a code."""
    return -(-_cells(count, size) // 8) + -(-count * _low_bits(count, size) // 8) if count else 0


def _low_bits(count: int, size: int) -> int:
    return max(0, (size // count).bit_length() - 1) if count else 0


def _cells(count: int, size: int) -> int:
    return count + (size >> _low_bits(count, size)) + 1
