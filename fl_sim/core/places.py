"""Where files are kept that belong to no run."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """``FL_SIM_CACHE``, else ``XDG_CACHE_HOME/fl-sim``, else ``~/.cache/fl-sim``; perhaps not there yet.

    Holds only what can be made or fetched again.
    """
    if own := os.environ.get("FL_SIM_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fl-sim"
