"""One study seed; every other seed is a function of it and of where it is used."""

import hashlib
import json

import torch


def derive_int(seed: int, *scope: str | int) -> int:
    """A number in [0, 2^63) for ``scope``, the same on every machine and in any order of calls."""
    text = json.dumps((seed, *scope))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def derive(seed: int, *scope: str | int) -> torch.Generator:
    """A CPU generator for ``scope``; see :func:`derive_int`."""
    return torch.Generator().manual_seed(derive_int(seed, *scope))
