"""Files that are whole or not there."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open

from fl_sim.core.errors import StoreError
from fl_sim.core.types import Tensors

JSON = dict[str, Any]


def write(path: Path, content: bytes) -> None:
    """Write to a temporary name, fsync, rename: readers see all of it or the file before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    write(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StoreError(f"expected JSON in {path}, got: {error}") from error


def write_tensors(path: Path, tensors: Tensors, about: Mapping[str, Any]) -> None:
    """Tensors with a JSON object ``about`` them, as one safetensors file."""
    contiguous = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    write(path, safetensors.torch.save(contiguous, {"about": json.dumps(about, allow_nan=False)}))


def read_tensors(path: Path) -> tuple[Tensors, JSON]:
    """The inverse of :func:`write_tensors`; the order of names is the file format's own, not the one given.

    Copies, because how a tensor lies in memory decides the last bit of sums, and a file's tensors lie anyhow.
    """
    with _opened(path) as file:
        about: JSON = json.loads(file.metadata()["about"])
        return {name: file.get_tensor(name).clone() for name in file.keys()}, about  # noqa: SIM118


def read_about(path: Path) -> JSON:
    """The JSON object of :func:`write_tensors` alone."""
    with _opened(path) as file:
        about: JSON = json.loads(file.metadata()["about"])
        return about


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise StoreError(f"expected tensors written by fl-sim in {path}, got: {error}") from error


def append_line(path: Path, value: JSON) -> None:
    """Add one JSON object to a file of lines, and wait until it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        _drop_torn_end(file)
        file.write(json.dumps(value, allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> Iterator[JSON]:
    """The objects of a file of lines; a torn last line (the process died) is skipped."""
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            yield json.loads(line)
        except ValueError as error:
            raise StoreError(f"expected one JSON object a line in {path}, got {line[:80]!r}") from error


def _drop_torn_end(file: Any) -> None:
    file.seek(0)
    whole = file.read().rpartition(b"\n")
    file.truncate(len(whole[0]) + len(whole[1]))
    file.seek(0, os.SEEK_END)
