"""How this process holds memory."""

import ctypes
import sys
from functools import cache

_TRIM, _PAD, _MMAP = -1, -2, -3  # names of malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD
_LIMITS = {_MMAP: 32 << 20, _TRIM: (1 << 31) - 1, _PAD: 64 << 20}  # bytes


@cache
def keep_freed_memory() -> None:
    """Keep what tensors free for those that follow, where the C library is glibc; once a process.

    Each step of a search frees and takes the same few megabytes. glibc gives them back to the system meanwhile, and
    every page has to be mapped anew: a quarter of the time of a step.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        for name, value in _LIMITS.items():
            mallopt(name, value)
