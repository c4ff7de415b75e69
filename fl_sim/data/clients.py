"""What each client holds, and which of it a round uses: the truth, recomputed wherever it is needed."""

from dataclasses import replace
from functools import lru_cache
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from fl_sim.core.errors import ConfigError
from fl_sim.core.part import part
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Task
from fl_sim.data.datasets import load
from fl_sim.data.partition import Partition, indices
from fl_sim.data.transforms import to_unit
from fl_sim.data.types import Dataset, Source, Split


@part
class ClientData:
    """Which images exist, who holds them, and which of them a client uses in a round.

    Pure configuration, small enough to send to any worker: same arguments, same answer, on every machine.

    Args:
        name: One of ``DATASETS``.
        path: Your own images, for ``npz`` and ``folder``.
        data_dir: Folder with downloaded data sets, only read; ``None``: ``$FL_SIM_DATA``.
        image_size: Side in pixels to which images are resized and centre-cropped; ``None``: as they are.
        split: Which images clients hold and train on; the other split is for testing and for the public.
        clients: How many there are; they are numbered from 0.
        partition: How the clients' split is divided among them.
        per_client: Most images a client holds; those over it are nobody's. ``None``: no limit.
        seed: Of the partition, of the order of images, and of the choice of test and public images.
    """

    name: str = "digits"
    path: str | None = None
    data_dir: str | None = None
    image_size: PositiveInt | None = None
    split: Literal["train", "test"] = "train"
    clients: PositiveInt = 4
    partition: Partition = Partition()
    per_client: PositiveInt | None = None
    seed: int = 0

    def dataset(self) -> Dataset:
        """All images, those of the clients' split as ``train``; read once a process."""
        data = load(Source(name=self.name, path=self.path, data_dir=self.data_dir, image_size=self.image_size))
        return data if self.split == "train" else _swapped(data)

    def task(self) -> Task:
        data = self.dataset()
        return Task(image_shape=data.image_shape, classes=data.classes, mean=data.mean, std=data.std)

    def holdings(self, client: int) -> Tensor:
        """What ``client`` holds: int64 indices into ``dataset().train``, in an order of no meaning."""
        if not 0 <= client < self.clients:
            raise ConfigError(f"client must be in 0..{self.clients - 1}, got {client}: raise clients, or name another")
        return _shares(self.dataset(), self.partition, self.clients, self.seed)[client][: self.per_client]

    def used(self, client: int, round_: int, size: int | None) -> Tensor:
        """The images ``client`` uses in ``round_`` (from 1): indices into ``dataset().train``.

        Rounds walk through an epoch, a fresh permutation of what the client holds, ``size`` images at a time; what is
        left at its end is skipped, so no image comes twice in an epoch. A client that holds no more than ``size``, or
        ``size`` ``None``: all it holds, every round.
        """
        held = self.holdings(client)
        return held[positions(len(held), client, round_, size, self.seed)]

    def batch(self, client: int, round_: int, size: int | None) -> Batch:
        """The images of :meth:`used`."""
        return _batch(self.dataset().train, self.used(client, round_, size))

    def held(self, client: int) -> Batch:
        """All ``client`` holds."""
        return _batch(self.dataset().train, self.holdings(client))

    def test(self, limit: int | None = None) -> Batch:
        """Held-out images: all, or a random ``limit`` of them, the same for every call."""
        return _batch(self.dataset().test, self._test_order()[:limit])

    def public(self, limit: int | None = None) -> Batch:
        """Images no client trains on: all, or a random ``limit`` of them, the same for every call.

        First those of the clients' split that nobody holds, then the other's, from the other end than :meth:`test`.
        """
        data = self.dataset()
        free = torch.ones(len(data.train.labels), dtype=torch.bool)
        for client in range(self.clients):
            free[self.holdings(client)] = False
        pool = free.nonzero()[:, 0]
        spare = pool[torch.randperm(len(pool), generator=derive(self.seed, "public"))][:limit]
        rest = self._test_order().flip(0)[: None if limit is None else limit - len(spare)]
        nobodys, held_out = _batch(data.train, spare), _batch(data.test, rest)
        return Batch(torch.cat([nobodys.images, held_out.images]), torch.cat([nobodys.labels, held_out.labels]))

    def _test_order(self) -> Tensor:
        return torch.randperm(len(self.dataset().test.labels), generator=derive(self.seed, "test"))


def positions(held: int, client: int, round_: int, size: int | None, seed: int) -> Tensor:
    """Which of the ``held`` images a client uses in a round: see :meth:`ClientData.used`."""
    if size is None:
        return torch.arange(held)
    if size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {size}")
    size = min(size, held)
    epoch, step = divmod(round_ - 1, held // size)
    order = torch.randperm(held, generator=derive(seed, "order", client, epoch))
    return order[step * size : (step + 1) * size]


@lru_cache(maxsize=4)
def _swapped(data: Dataset) -> Dataset:
    return replace(data, train=data.test, test=data.train)


@lru_cache(maxsize=8)
def _shares(dataset: Dataset, partition: Partition, clients: int, seed: int) -> tuple[Tensor, ...]:
    return indices(dataset.train.labels, partition, clients, seed)


def _batch(split: Split, chosen: Tensor) -> Batch:
    return Batch(to_unit(split.images[chosen]), split.labels[chosen])
