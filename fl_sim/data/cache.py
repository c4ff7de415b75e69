"""Decoded data sets and partitions on disk: made again when lost, so the folder may be deleted at any time."""

import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fl_sim.core.errors import ConfigError
from fl_sim.core.places import cache_dir

Arrays: TypeAlias = Mapping[str, np.ndarray[Any, Any]]


def cache_path(place: str) -> Path:
    """Where :func:`stored` keeps ``place``, such as ``datasets/mnist``."""
    return cache_dir() / f"{place}.npz"


def stored(place: str, make: Callable[[], Arrays]) -> Arrays:
    """The arrays kept at ``place``; made and kept first when they are not there.

    Processes may race: each writes a whole file and renames it, so a reader never sees half of one.
    """
    path = cache_path(place)
    if not path.exists():
        _write(path, make())
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} should hold cached arrays, but cannot be read ({error}): delete it") from error


def _write(path: Path, arrays: Arrays) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            whole = Path(scratch) / path.name
            with whole.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
                file.flush()
                os.fsync(file.fileno())
            whole.replace(path)
    except OSError as error:
        raise ConfigError(
            f"the cache {path.parent} must be writable, got {error}: set FL_SIM_CACHE to a folder that is"
        ) from error
