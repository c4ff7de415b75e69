"""The truth as far as whoever audits has it: kept in the run folder, beside what the attacks are given."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

from fl_sim.core.errors import MissingDataError
from fl_sim.core.types import Batch, Task
from fl_sim.runtime import files
from fl_sim.runtime.cells import CellStore, Key

_PUBLIC = "public"
_APART = 1 << 20  # more than the images of any client


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
        """By client: what one holds in another round may be the same images. Of an aggregate, an even share."""
        del size
        if self.knows(key := Key(round_, client)):
            return client * _APART + torch.arange(len(self.batch(*key[::-1], None).labels))
        whole = next(k for k in self.place.observation_keys() if k.round == round_ and client in self.place.members(k))
        members = self.place.members(whole)
        share, rest = divmod(self.place.num_examples(whole), len(members))
        return client * _APART + torch.arange(share + (members.index(client) < rest))

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
        rounds = sorted({key.round for key in self.place.observation_keys()})
        known = [self.batch(client, number, None) for number in rounds if self.knows(Key(number, client))]
        images, labels = torch.cat([b.images for b in known]), torch.cat([b.labels for b in known])
        once = {digest: place for place, digest in reversed(list(enumerate(digests(images))))}
        chosen = torch.tensor(sorted(once.values()))
        return Batch(images[chosen], labels[chosen])

    def public(self, limit: int | None = None) -> Batch:
        """Those that were given, without labels; where none was, none."""
        images = torch.zeros(0, *self.task().image_shape)
        if self._file(_PUBLIC).exists():
            images = files.read_tensors(self._file(_PUBLIC))[0]["images"][:limit]
        return Batch(images, torch.zeros(len(images), dtype=torch.int64))

    def _file(self, name: str) -> Path:
        return self.place.path / "truth" / f"{name}.safetensors"


def digests(images: Tensor) -> Iterator[bytes]:
    """Of each image's pixels: equal for equal images alone."""
    return (blake2b(image.numpy().tobytes(), digest_size=16).digest() for image in images)
