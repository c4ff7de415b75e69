"""Data sets by name."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from fl_sim.core.errors import ConfigError, suggestion
from fl_sim.data.cache import cache_path
from fl_sim.data.cifar import CIFAR10, CIFAR100, cifar10, cifar100
from fl_sim.data.domains import mnist_inverted, mnist_renamed, mnist_rotated
from fl_sim.data.own import folder, npz
from fl_sim.data.published import MNIST_FILES, MNIST_PLACES, digits, mnist
from fl_sim.data.synthetic import dist_gaussian, dist_gmm
from fl_sim.data.transforms import to_square
from fl_sim.data.types import Dataset, Source, Split

DATASETS: Mapping[str, Callable[[Source], Dataset]] = MappingProxyType(
    {
        "digits": digits,
        "mnist": mnist,
        "mnist_inverted": mnist_inverted,
        "mnist_renamed": mnist_renamed,
        "mnist_rotated": mnist_rotated,
        "cifar10": cifar10,
        "cifar100": cifar100,
        "dist_gaussian": dist_gaussian,
        "dist_gmm": dist_gmm,
        "npz": npz,
        "folder": folder,
    }
)

DOWNLOADED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "mnist": tuple(f"{place}/{MNIST_FILES[0]}" for place in MNIST_PLACES),
        "cifar10": ("cifar10_exact_train.npz", CIFAR10.file),
        "cifar100": (CIFAR100.file,),
    }
)
"""Data sets that need files, and those that each is looked for by in ``FL_SIM_DATA``."""


def load(source: Source) -> Dataset:
    """The data set ``source`` names; read once a process.

    Raises:
        ConfigError: No such data set, or a file of yours that cannot be used.
        MissingDataError: Its files are nowhere to be found.
    """
    if source.name not in DATASETS:
        near = suggestion(source.name, DATASETS)
        raise ConfigError(f"data.name must be one of {', '.join(DATASETS)}, got {source.name!r}{near}")
    return _load(replace(source, data_dir=source.data_dir or os.environ.get("FL_SIM_DATA")))


def found(name: str, data_dir: str | None) -> Path | None:
    """A local file that a downloaded data set would be read from; ``None``: it would be downloaded."""
    source = Source(name=name, data_dir=data_dir or os.environ.get("FL_SIM_DATA"))
    places = [cache_path(f"datasets/{name}"), *(source.in_data_dir(place) for place in DOWNLOADED[name])]
    return next((place for place in places if place is not None and place.exists()), None)


@lru_cache(maxsize=4)
def _load(source: Source) -> Dataset:
    dataset = DATASETS[source.name](source)
    if source.image_size is None:
        return dataset
    train, test = (
        Split(to_square(split.images, source.image_size), split.labels) for split in (dataset.train, dataset.test)
    )
    return replace(dataset, train=train, test=test)
