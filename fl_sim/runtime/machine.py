"""How much of the machine work may take where nobody says."""

import os

_EACH = 4 << 30  # bytes for each processor: a client and an attack, each a process of about a GiB, and what they hold


def processors() -> int:
    """Those that this process may use, as its affinity and its container's quota allow; fewer where memory is short."""
    import joblib

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(int(joblib.cpu_count()), memory // _EACH))
