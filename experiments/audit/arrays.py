"""Recorded arrays as tensors: safetensors, npz, ``torch.save``. Nothing is ever unpickled beyond plain tensors."""

import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from zipfile import BadZipFile

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from fl_sim.core.errors import ConfigError
from fl_sim.core.types import Batch, Task

Arrays = dict[str, Tensor]

_LISTED = re.compile(r"(?:arr_)?\d+")  # names of an array in a list: numpy's own, or its number
_WRAPPED = ("state_dict", "model", "model_state_dict", "params")  # where checkpoints keep it


def read(path: Path) -> Arrays:
    """Named arrays; those of a list are named ``0``, ``1``, ... in its order. Floats are float32.

    Raises:
        ConfigError: No such file, another kind of file, or one that holds anything but arrays.
    """
    if path.suffix not in READERS:
        raise ConfigError(f"{path}: expected one of {', '.join(READERS)}, got {path.suffix or 'no suffix'}: convert it")
    try:
        found = READERS[path.suffix](path)
    except (OSError, EOFError, TypeError, ValueError, BadZipFile, zlib.error, SafetensorError) as error:
        raise ConfigError(f"{path}: expected arrays of numbers, got: {error}") from error
    if not found:
        raise ConfigError(f"{path}: expected arrays, got none")
    return {name: t.float() if t.is_floating_point() else t for name, t in _in_order(found).items()}


def _npz(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        if isinstance(file, np.ndarray):
            raise ConfigError(f"{path}: expected several arrays, got one: write them with numpy.savez")
        return {name: torch.from_numpy(file[name]) for name in file.files}


def _saved(path: Path) -> Arrays:
    """``torch.load`` with ``weights_only``, which constructs tensors and containers and nothing else."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged or foreign pickle raises almost anything
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"{path}: expected tensors that load with weights_only, got: {reason}: save model.state_dict(), or "
            "numpy.savez of the arrays; other objects are never unpickled"
        ) from error
    while isinstance(found, Mapping) and (inner := [found[k] for k in _WRAPPED if isinstance(found.get(k), Mapping)]):
        found = inner[0]
    if isinstance(found, (list, tuple)):
        found = {str(i): t for i, t in enumerate(found)}
    if not isinstance(found, Mapping) or not all(isinstance(t, Tensor) for t in found.values()):
        raise ConfigError(f"{path}: expected a state dict or a list of tensors, got {type(found).__name__}")
    return {str(name): t.detach() for name, t in found.items()}


READERS: Mapping[str, Callable[[Path], Arrays]] = MappingProxyType(
    {
        ".safetensors": safetensors.torch.load_file,
        ".npz": _npz,
        ".pt": _saved,
        ".pth": _saved,
        ".bin": _saved,
    }
)
"""By suffix."""


def is_list(arrays: Arrays) -> bool:
    """Whether these are numbered rather than named."""
    return all(_LISTED.fullmatch(name) for name in arrays)


def _number(name: str) -> int:
    return int(name.removeprefix("arr_"))


def _in_order(arrays: Arrays) -> Arrays:
    if not is_list(arrays):
        return arrays
    return {str(_number(name)): arrays[name] for name in sorted(arrays, key=_number)}


def read_images(path: Path, task: Task, *, labelled: bool = True) -> Batch:
    """``images`` ``(N, C, H, W)`` in [0, 1], or uint8 ``(N, H, W[, C])``, and ``labels`` ``(N,)`` from 0.

    Raises:
        ConfigError: Images of another shape or range, or labels that do not go with them.
    """
    found = read(path)
    if missing := ({"images", "labels"} if labelled else {"images"}) - set(found):
        raise ConfigError(f"{path}: expected the arrays {sorted(missing)} too, got {sorted(found)}")
    images = _unit(found["images"])
    if not images.numel():
        raise ConfigError(f"{path}: expected images, got none")
    labels = found.get("labels", torch.zeros(len(images))).long()
    low, high = float(images.min()), float(images.max())
    if tuple(images.shape[1:]) != task.image_shape or not 0 <= low <= high <= 1:  # NaN is not, either
        raise ConfigError(
            f"{path}: expected images {task.image_shape} in [0, 1], before any normalisation, got "
            f"{tuple(images.shape[1:])} in [{low:g}, {high:g}]"
        )
    if labels.shape != images.shape[:1] or not 0 <= int(labels.min()) <= int(labels.max()) < task.classes:
        raise ConfigError(f"{path}: expected {len(images)} labels in 0..{task.classes - 1}, got {labels.tolist()}")
    return Batch(images, labels)


def _unit(images: Tensor) -> Tensor:
    if images.dtype != torch.uint8:
        return images.float()
    return (images.movedim(-1, 1) if images.dim() == 4 else images.unsqueeze(1)).float() / 255
