"""The truth as far as whoever audits has it: kept in the run folder, beside what the attacks are given."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

from fl_sim.core.errors import MissingDataError
from fl_sim.core.types import Batch, Task
from fl_sim.runtime import files
from fl_sim.runtime.cells import CellStore, Key

_PUBLIC = "public"
_APART = 1 << 20  # images of one client at most, where only clients tell images apart


@dataclass(frozen=True)
class Recorded:
    """Implements :class:`fl_sim.data.types.Images` on the files in ``place/truth``: ``images`` and ``labels`` each."""

    place: CellStore

    def save(self, key: Key, batch: Batch) -> None:
        files.write_tensors(self._file(str(key)), batch._asdict(), {})

    def save_public(self, images: Tensor) -> None:
        files.write_tensors(self._file(_PUBLIC), {"images": images}, {})

    def knows(self, key: Key) -> bool:
        return self._file(str(key)).exists()

    def task(self) -> Task:
        return self.place.task(self.place.observation_keys()[0])

    def used(self, client: int, round_: int, size: int | None) -> Tensor:
        """By content; unknown images by client, who may hold the same ones in every round."""
        del size
        key = Key(round_, client)
        if not self.knows(key):
            return torch.tensor([-1 - client * _APART])
        return torch.tensor([self._numbers[digest] for digest in _digests(self.batch(client, round_, None).images)])

    def batch(self, client: int, round_: int, size: int | None) -> Batch:
        """
        Raises:
            MissingDataError: It is not known.
        """
        del size
        if not self.knows(key := Key(round_, client)):
            raise MissingDataError(f"expected the truth of round {round_}, client {client}: name it in AUDIT.toml")
        tensors, _ = files.read_tensors(self._file(str(key)))
        return Batch(tensors["images"], tensors["labels"])

    def held(self, client: int) -> Batch:
        """Of all its rounds, each image once."""
        known = [self.batch(*key[::-1], None) for key in self._keys if key.client == client]
        images, labels = torch.cat([b.images for b in known]), torch.cat([b.labels for b in known])
        once = {digest: place for place, digest in reversed(list(enumerate(_digests(images))))}
        chosen = torch.tensor(sorted(once.values()))
        return Batch(images[chosen], labels[chosen])

    def public(self, limit: int | None = None) -> Batch:
        """Those that were given, without labels; where none was, none."""
        images = torch.zeros(0, *self.task().image_shape)
        if self._file(_PUBLIC).exists():
            images = files.read_tensors(self._file(_PUBLIC))[0]["images"][:limit]
        return Batch(images, torch.zeros(len(images), dtype=torch.int64))

    @cached_property
    def _keys(self) -> list[Key]:
        return [key for key in self.place.observation_keys() if self.knows(key)]

    @cached_property
    def _numbers(self) -> Mapping[bytes, int]:
        known = [self.batch(key.client, key.round, None).images for key in self._keys]
        found = dict[bytes, int]()
        for digest in (digest for images in known for digest in _digests(images)):
            found.setdefault(digest, len(found))
        return found

    def _file(self, name: str) -> Path:
        return self.place.path / "truth" / f"{name}.safetensors"


def _digests(images: Tensor) -> Iterator[bytes]:
    return (blake2b(image.numpy().tobytes(), digest_size=16).digest() for image in images)
