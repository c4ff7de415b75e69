"""How this process holds memory, where the C library is glibc."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_TRIM, _PAD, _MAPS = -1, -2, -4  # names of malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX
_LIMITS = {_MAPS: 0, _TRIM: (1 << 31) - 1, _PAD: 64 << 20}  # bytes, and a number of mappings


@cache
def keep_freed_memory() -> None:
    """Keep what tensors free for those that follow; once a process.

    Each step of a search frees and takes the same megabytes. glibc gives them back to the system meanwhile, and every
    page has to be mapped anew: a quarter of the time of a step, half of that of 64 candidates. Nor are large tensors
    mapped one by one, which no threshold above 32 MiB would prevent.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        for name, value in _LIMITS.items():
            mallopt(name, value)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """As :func:`keep_freed_memory`, until the end: then the system gets what is free, for whoever works beside."""
    keep_freed_memory()
    try:
        yield
    finally:
        if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
            trim(0)
