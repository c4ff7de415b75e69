"""Tensors out of NVlabs' pickled networks, without running anything that a pickle names.

Such a file (of ``torch_utils.persistence``) carries the source code of its classes, executed by whoever unpickles it.
Here every name that it may use stands for a function or class below; any other is refused.
"""

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from fl_sim.core.errors import ConfigError


def network(path: Path, name: str) -> dict[str, Tensor]:
    """Parameters and buffers of the module ``name`` of a pickled dictionary, by their place in it.

    Raises:
        ConfigError: Not such a file, or one that names what is none of these files' business.
    """
    try:
        with path.open("rb") as file:
            whole = _Unpickler(file).load()
        module = whole.get(name) if isinstance(whole, Mapping) else None
        if not isinstance(module, _Module):
            raise ConfigError(f"expected a dictionary with a network {name!r}, got another pickle in {path}")
        return _tensors(module, "")
    except ConfigError:
        raise
    except Exception as error:  # a damaged pickle raises almost anything
        raise ConfigError(f"expected a network pickled by stylegan2-ada-pytorch, got {path}: {error}") from error


class _Inert:
    """Stands for what is of no use: numbers and arrays of NumPy."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


class _Module:
    """Stands for a module of any class: its attributes."""

    state: Mapping[str, Any] = MappingProxyType({})

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.state = state


def _persistent(meta: Mapping[str, Any]) -> _Module:
    """Of ``meta`` the state is kept; its source code is text that nobody reads."""
    module = _Module()
    module.__setstate__(meta["state"])
    return module


def _encoded(text: str, _: str) -> bytes:
    """Bytes, as protocol 2 spells them."""
    return text.encode("latin1")


def _storage(content: bytes) -> Tensor:
    """A storage as torch pickles it, as a flat tensor."""
    storage = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return torch.empty(0, dtype=storage.dtype).set_(storage)


def _tensor(flat: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: object) -> Tensor:
    return flat.as_strided(tuple(size), tuple(stride), offset).clone()


def _parameter(data: Tensor, *_: object) -> Tensor:
    return data


_NAMES: Mapping[tuple[str, str], Callable[..., Any]] = MappingProxyType(
    {
        ("collections", "OrderedDict"): OrderedDict,
        ("builtins", "set"): set,
        ("__builtin__", "set"): set,
        ("dnnlib.util", "EasyDict"): dict,
        ("_codecs", "encode"): _encoded,
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
        ("torch.storage", "_load_from_bytes"): _storage,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("numpy", "dtype"): _Inert,
        ("numpy", "ndarray"): _Inert,
        **{
            (f"numpy.{core}.{module}", name): _Inert
            for core in ("core", "_core")
            for module, name in (("multiarray", "scalar"), ("multiarray", "_reconstruct"), ("numeric", "_frombuffer"))
        },
    }
)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("torch.nn.modules."):
            return _Module
        if (module, name) not in _NAMES:
            raise ConfigError(
                f"the file asks for {module}.{name}, which no network of stylegan2-ada-pytorch needs: do not trust "
                "this file; nothing of it was run"
            )
        return _NAMES[module, name]


def _tensors(module: _Module, prefix: str) -> dict[str, Tensor]:
    own = {**module.state.get("_parameters", {}), **module.state.get("_buffers", {})}
    found = {prefix + name: value for name, value in own.items() if value is not None}
    for name, inner in module.state.get("_modules", {}).items():
        if isinstance(inner, _Module):
            found |= _tensors(inner, f"{prefix}{name}.")
    return found
