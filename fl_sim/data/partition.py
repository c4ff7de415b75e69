"""Who holds which image: flwr-datasets' partitioners, each drawn once and then read from the cache."""

import hashlib
import warnings
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from fl_sim.core.errors import ConfigError
from fl_sim.core.part import part
from fl_sim.core.seeds import derive, derive_int
from fl_sim.data.cache import Arrays, stored

_OPTIONS = {"dirichlet": "alpha", "pathological": "classes_per_client", "sizes": "sizes"}


@part
class Partition:
    """How the training images are divided.

    Args:
        kind: ``iid``: at random, equally many each. ``dirichlet``: each class by proportions drawn from a Dirichlet
            (Yurochkin et al. 2019, arXiv:1905.12022). ``pathological``: a few classes each (McMahan et al. 2017,
            arXiv:1602.05629). ``linear``, ``square``, ``exponential``: at random, client k of 1..K holding images in
            proportion to k, k^2, e^k. ``sizes``: at random, as many as given; the rest is nobody's.
        alpha: Of ``dirichlet`` (default 0.5); smaller is more skewed.
        classes_per_client: Of ``pathological`` (default 2).
        sizes: Of ``sizes``: images of each client.
    """

    kind: Literal["iid", "dirichlet", "pathological", "linear", "square", "exponential", "sizes"] = "iid"
    alpha: PositiveFloat | None = None
    classes_per_client: PositiveInt | None = None
    sizes: tuple[PositiveInt, ...] | None = None

    def __post_init__(self) -> None:
        for kind, option in _OPTIONS.items():
            if kind != self.kind and getattr(self, option) is not None:
                raise ValueError(f"{option} belongs to kind = {kind!r}, got kind = {self.kind!r}: remove one of them")
        if self.kind == "sizes" and not self.sizes:
            raise ValueError("kind = 'sizes' needs sizes, the number of images of each client: add it")


def indices(labels: Tensor, partition: Partition, clients: int, seed: int) -> tuple[Tensor, ...]:
    """The images of each client: disjoint int64 indices into ``labels`` (N,), in a random order of their own.

    Raises:
        ConfigError: There is no such partition; says what to change.
    """
    if clients > len(labels):
        raise ConfigError(f"{clients} clients cannot share {len(labels)} images: lower clients, or take more images")
    if partition.sizes and (len(partition.sizes) != clients or sum(partition.sizes) > len(labels)):
        raise ConfigError(
            f"partition.sizes must be {clients} numbers, one a client, of sum {len(labels)} at most, "
            f"got {len(partition.sizes)} of sum {sum(partition.sizes)}: change sizes or clients"
        )
    key = hashlib.blake2b(labels.numpy().tobytes(), digest_size=16)
    key.update(repr((partition, clients, seed, version("flwr-datasets"))).encode())
    drawn = stored(f"partitions/{key.hexdigest()}", lambda: _draw(labels.numpy(), partition, clients, seed))
    return tuple(torch.from_numpy(held) for held in np.split(drawn["indices"], drawn["sizes"].cumsum()[:-1]))


def _draw(labels: np.ndarray[Any, Any], partition: Partition, clients: int, seed: int) -> Arrays:
    """Partitioners by size cut the data as it lies, so it is shuffled before."""
    order = torch.randperm(len(labels), generator=derive(seed, "partition")).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library: about imports, repeated draws and unused classes
        from datasets import Dataset

        partitioner = _partitioner(partition, clients, derive_int(seed, "partition"))
        partitioner.dataset = Dataset.from_dict({"label": labels[order], "index": order}).with_format("numpy")
        try:
            parts = [partitioner.load_partition(client)["index"][:] for client in range(clients)]
        except ValueError as error:
            raise _impossible(partition, clients, labels, error) from error
    sizes = np.array([len(held) for held in parts])
    if sizes.min() < 1:
        raise _impossible(partition, clients, labels, "a client is left without an image")
    return {"indices": np.concatenate(parts).astype(np.int64), "sizes": sizes}


def _partitioner(partition: Partition, clients: int, seed: int) -> Any:
    from flwr_datasets import partitioner as flwr

    match partition.kind:
        case "dirichlet":
            return flwr.DirichletPartitioner(clients, "label", partition.alpha or 0.5, min_partition_size=1, seed=seed)
        case "pathological":
            classes, mode = partition.classes_per_client or 2, "first-deterministic"
            return flwr.PathologicalPartitioner(clients, "label", classes, mode, seed=seed)
        case "sizes":
            return flwr.SizePartitioner(partition.sizes)
    by_number = {
        "iid": flwr.IidPartitioner,
        "linear": flwr.LinearPartitioner,
        "square": flwr.SquarePartitioner,
        "exponential": flwr.ExponentialPartitioner,
    }
    return by_number[partition.kind](clients)


def _impossible(partition: Partition, clients: int, labels: np.ndarray[Any, Any], why: str | ValueError) -> ConfigError:
    option = _OPTIONS.get(partition.kind)
    change = {"alpha": "raise partition.alpha, ", "classes_per_client": "change partition.classes_per_client, "}
    return ConfigError(
        f"partition {partition.kind!r} must give each of {clients} clients an image, which {len(labels)} images of "
        f"{len(np.unique(labels))} classes do not allow ({why}): {change.get(option or '', '')}lower clients, "
        f"or use kind = 'iid'"
    )
