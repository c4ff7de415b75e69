"""The nouns of this package: where images come from, and the images."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from pydantic import PositiveInt
from torch import Tensor

from fl_sim.core.errors import ConfigError, MissingDataError
from fl_sim.core.part import part
from fl_sim.core.types import Batch, Task
from fl_sim.data.cache import Arrays

_SELECTION = re.compile(r"(train|test)(?:\[(\d*):(\d*)\])?")


class Images(Protocol):
    """Who held which images when: what reconstructions are held against, and what controls are made of."""

    def task(self) -> Task: ...

    def used(self, client: int, round_: int, size: int | None) -> Tensor:
        """Numbers ``(N,)`` int64 of the images behind an update: the same image has the same number."""

    def batch(self, client: int, round_: int, size: int | None) -> Batch:
        """The images of :meth:`used`."""

    def held(self, client: int) -> Batch:
        """All that a client holds, as far as that is known."""

    def public(self, limit: int | None = None) -> Batch:
        """Images that no client has; perhaps none."""


class Split(NamedTuple):
    """Images ``(N, C, H, W)``, uint8 or (drawn, not read) float32 in [0, 1], and labels ``(N,)`` int64."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Dataset:
    """All images of a learning task.

    Args:
        mean: Per channel, of training pixels in [0, 1]; the published figures for MNIST and CIFAR-10.
        std: As ``mean``; never 0.
        origin: Where the pixels were read from, for the record: the same name may stand for a subset.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)``."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def select(self, which: str) -> Split:
        """Images by ``train``, ``test``, or a slice of one of them in the order of the files: ``train[:50000]``.

        Raises:
            ConfigError: Something else, or no image.
        """
        if not (found := _SELECTION.fullmatch(which)):
            raise ConfigError(f"expected train, test or a slice of one of them, such as train[:50000], got {which!r}")
        split: Split = getattr(self, found[1])
        part = slice(*(int(bound) if bound else None for bound in found.groups()[1:]))
        chosen = Split(split.images[part], split.labels[part])
        if not len(chosen.labels):
            raise ConfigError(f"{which} should hold images; {self.name} has {len(split.labels)} in {found[1]}")
        return chosen


@part
class Source:
    """Which data set, and where to look for it.

    Args:
        name: One of ``DATASETS``.
        path: The file of ``npz``, the folder of ``folder``; no other data set reads it.
        data_dir: Folder with downloaded data sets, never written to; ``None``: ``$FL_SIM_DATA``.
        image_size: Side in pixels to which images are resized and centre-cropped; ``None``: as they are.
    """

    name: str
    path: str | None = None
    data_dir: str | None = None
    image_size: PositiveInt | None = None

    def given_path(self) -> Path:
        """``path``, which must be given and must exist."""
        if self.path is None:
            raise ConfigError(f"data.name = {self.name!r} reads your own images: set data.path to where they are")
        path = Path(self.path).expanduser()
        if not path.exists():
            raise MissingDataError(f"data.path should hold images, but {path.absolute()} does not exist: correct it")
        return path

    def in_data_dir(self, place: str) -> Path | None:
        """``place`` inside the data folder; ``None`` where no data folder is set."""
        return None if self.data_dir is None else Path(self.data_dir).expanduser() / place

    def missing(self, files: str, places: Sequence[Path | None], why: Exception) -> MissingDataError:
        """The error to raise when ``files`` are at none of ``places`` and could not be downloaded."""
        looked = ", ".join(str(place) for place in places if place is not None)
        unset = "" if self.data_dir else "; FL_SIM_DATA is not set"
        return MissingDataError(
            f"{self.name} needs {files}. Looked at: {looked}{unset}. "
            f"The download failed: {' '.join(str(why).split())}. "
            f"Set FL_SIM_DATA (or --data-dir) to a folder that has the files, or put them at "
            f"{places[0] or 'such a folder'}, or use data.name = 'digits', which needs none"
        )


def from_arrays(
    name: str,
    arrays: Arrays,
    *,
    origin: str,
    class_names: Sequence[str],
    moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
) -> Dataset:
    """A data set of ``train_images``, ``train_labels``, ``test_images``, ``test_labels``; NCHW uint8 and integers."""
    train, test = (
        Split(torch.from_numpy(arrays[f"{part}_images"]), torch.from_numpy(arrays[f"{part}_labels"]).long())
        for part in ("train", "test")
    )
    mean, std = moments or channel_moments(train.images)
    return Dataset(name=name, train=train, test=test, class_names=tuple(class_names), mean=mean, std=std, origin=origin)


def channel_moments(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, in [0, 1] units; the latter at least one grey level."""
    grey = torch.arange(256, dtype=torch.float64) / 255
    shares = [torch.bincount(images[:, c].reshape(-1), minlength=256).double() for c in range(images.shape[1])]
    means = [(share @ grey / share.sum()).item() for share in shares]
    stds = [
        (share @ (grey - mean).square() / share.sum()).sqrt().item() for share, mean in zip(shares, means, strict=True)
    ]
    return tuple(means), tuple(max(std, 1 / 255) for std in stds)
