"""Fitted things in files: safetensors with JSON about them, nothing pickled."""

import json
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from fl_sim.core.errors import ConfigError, MissingDataError
from fl_sim.core.types import Tensors

About = TypeVar("About")


class Version(NamedTuple):
    """A file as it is now: written again, it is another, and is read again."""

    path: Path
    modified: int  # ns

    @classmethod
    def of(cls, path: str, advice: str) -> "Version":
        """The file at ``path``, which must exist."""
        place = Path(path).expanduser()
        try:
            return cls(place, place.stat().st_mtime_ns)
        except OSError as error:
            raise MissingDataError(f"expected a file at {place.absolute()}, got: {error.strerror}: {advice}") from error


def read(version: Version, kind: type[About], advice: str) -> tuple[Tensors, About]:
    """Tensors, and the metadata entry ``about`` as ``kind``.

    Raises:
        ConfigError: No such file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(version.path, "pt") as file:
            about = kind(**json.loads(file.metadata()["about"]))
            return {name: file.get_tensor(name).clone() for name in file.keys()}, about  # noqa: SIM118
    except (OSError, KeyError, TypeError, ValueError, ValidationError, SafetensorError) as error:
        raise ConfigError(f"expected {advice}, got {version.path}: {error}") from error
