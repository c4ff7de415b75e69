"""One client's images, alone in a file: what its machine needs of the data, and all that it gets."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from fl_sim.core.errors import ConfigError, MissingDataError
from fl_sim.core.types import Batch, Task
from fl_sim.data.clients import ClientData, positions
from fl_sim.data.transforms import to_unit
from fl_sim.data.types import Split


@dataclass(frozen=True, eq=False, kw_only=True)
class Share:
    """Gives the batches that :class:`ClientData` gives for this client, to the bit.

    Args:
        held: In the order of :meth:`ClientData.holdings`.
        seed: Of the order in which rounds use them.
    """

    client: int
    seed: int
    task: Task
    held: Split

    def batch(self, client: int, round_: int, size: int | None) -> Batch:
        """As :meth:`ClientData.batch`.

        Raises:
            ConfigError: These are another client's images.
        """
        if client != self.client:
            raise ConfigError(
                f"expected the images of client {client}, got client {self.client}'s: mount its own folder"
            )
        chosen = positions(len(self.held.labels), client, round_, size, self.seed)
        return Batch(to_unit(self.held.images[chosen]), self.held.labels[chosen])


def share_of(data: ClientData, client: int) -> Share:
    """What ``client`` holds, cut out of the whole."""
    train, mine = data.dataset().train, data.holdings(client)
    return Share(client=client, seed=data.seed, task=data.task(), held=Split(train.images[mine], train.labels[mine]))


def write_share(path: Path, share: Share) -> None:
    """As an .npz of plain arrays, whole or not at all."""
    about = {"client": share.client, "seed": share.seed, "task": asdict(share.task)}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp.npz")
    np.savez(temporary, images=share.held.images.numpy(), labels=share.held.labels.numpy(), about=json.dumps(about))
    temporary.replace(path)


def read_share(path: Path) -> Share:
    """The inverse of :func:`write_share`.

    Raises:
        MissingDataError: There is no such file.
    """
    if not path.exists():
        raise MissingDataError(f"expected this client's images of the study in {path}: run `fl-sim deploy share STUDY`")
    with np.load(path, allow_pickle=False) as file:
        about = json.loads(str(file["about"]))
        held = Split(torch.from_numpy(file["images"]), torch.from_numpy(file["labels"]))
    task = about["task"]
    task |= {name: tuple(task[name]) for name in ("image_shape", "mean", "std")}
    return Share(client=about["client"], seed=about["seed"], task=Task(**task), held=held)
