"""How this process holds memory, where the C library is glibc; nothing happens elsewhere."""

import ctypes
import sys
from collections.abc import Callable
from functools import cache

_TRIM, _PAD, _MAPS = -1, -2, -4  # names of malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX
_LIMITS = {_MAPS: 0, _TRIM: (1 << 31) - 1, _PAD: 64 << 20}  # bytes, and a number of mappings


@cache
def keep_freed() -> None:
    """Keep what tensors free for those that follow; for all of this process's life.

    Each step of a search frees and takes the same megabytes. glibc gives them back to the system meanwhile, and every
    page has to be mapped anew: a quarter of the time of a step, half of that of 64 candidates. Large tensors are not
    mapped one by one either; a threshold would not do, as glibc accepts none above 32 MiB.
    """
    for name, value in _LIMITS.items():
        _of_c_library("mallopt")(name, value)


def give_back() -> None:
    """Give the system what is free now: whoever works beside wants it, or asks how much there is."""
    _of_c_library("malloc_trim")(0)


def _of_c_library(name: str) -> Callable[..., object]:
    found = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    return found or (lambda *_: None)
