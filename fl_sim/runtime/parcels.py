"""Jobs on their way to Ray's actors: a tensor that many of them hold goes into Ray's object store once."""

import io
import pickle
import threading
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import ray
import torch
from ray import cloudpickle
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

_LARGE = 64 << 10  # bytes; smaller tensors travel inside their job


class Parcel(NamedTuple):
    """A pickled job, and references to the large tensors that were taken out of it."""

    content: bytes
    tensors: list[Any]


class Packer:
    """Packs jobs. Nobody writes to their tensors, so which tensor it is says what it holds.

    A tensor stays in the store for as long as this process holds it.
    """

    def __init__(self) -> None:
        self._stored = WeakIdKeyDictionary()
        self._lock = threading.Lock()

    def __call__(self, job: object) -> Parcel:
        content = io.BytesIO()
        pickler = _Pickler(content)
        pickler.dump(job)  # type: ignore[no-untyped-call]
        return Parcel(content.getvalue(), [self._put(tensor) for tensor in pickler.taken])

    def _put(self, tensor: Tensor) -> Any:
        with self._lock:
            if tensor not in self._stored:
                self._stored[tensor] = ray.put(tensor.numpy())  # ten times as fast as the tensor itself
            return self._stored[tensor]


def unpacked(parcel: Parcel) -> Any:
    """The job, in an actor. Its large tensors lie in the store's own memory, which can only be read."""
    arrays = ray.get(parcel.tensors)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        tensors = [torch.from_numpy(array) for array in arrays]
    return _Unpickler(io.BytesIO(parcel.content), tensors).load()


class _Pickler(cloudpickle.Pickler):
    """Leaves large tensors out, and keeps them in ``taken``."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)  # type: ignore[no-untyped-call]
        self.taken: list[Tensor] = []
        self._places: dict[int, int] = {}

    def persistent_id(self, part: object) -> int | None:
        if type(part) is not Tensor or not _is_large(part):
            return None
        if id(part) not in self._places:
            self._places[id(part)] = len(self.taken)
            self.taken.append(part)
        return self._places[id(part)]


class _Unpickler(pickle.Unpickler):
    """Puts ``tensors`` where they were taken from."""

    def __init__(self, file: io.BytesIO, tensors: Sequence[Tensor]) -> None:
        super().__init__(file)
        self._tensors = tensors

    def persistent_load(self, place: int) -> Tensor:
        return self._tensors[place]


def _is_large(tensor: Tensor) -> bool:
    plain = tensor.dtype == torch.float32 and tensor.device.type == "cpu" and not tensor.requires_grad
    return plain and tensor.layout == torch.strided and tensor.nbytes >= _LARGE
