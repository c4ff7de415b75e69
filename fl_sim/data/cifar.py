"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): their binary version, as the one for Python is pickled."""

import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fl_sim.core.errors import MissingDataError
from fl_sim.data.cache import Arrays, cache_path, stored
from fl_sim.data.published import impatient
from fl_sim.data.types import Dataset, Source, from_arrays

_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR10_MOMENTS = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
_PIXELS = (3, 32, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A ``.tar.gz`` of records: ``label_bytes`` bytes, the last of which is the label, then 3x32x32 pixels."""

    file: str
    md5: str
    label_bytes: int
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str

    @property
    def url(self) -> str:
        return f"https://www.cs.toronto.edu/~kriz/{self.file}"


CIFAR10 = Archive(
    file="cifar-10-binary.tar.gz",
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    label_bytes=1,
    train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    test=("test_batch.bin",),
    names="batches.meta.txt",
)
CIFAR100 = Archive(
    file="cifar-100-binary.tar.gz",
    md5="03b5dce01913d631647c71ecec9e9cb8",
    label_bytes=2,  # coarse, then fine
    train=("train.bin",),
    test=("test.bin",),
    names="fine_label_names.txt",
)


def cifar10(source: Source) -> Dataset:
    """60,000 photographs in 10 classes, 32x32 RGB; or the exact subset in FL_SIM_DATA, where there is one."""
    train, test = (source.in_data_dir(f"cifar10_exact_{part}.npz") for part in ("train", "test"))
    if train and test and train.exists() and test.exists():
        arrays = {**_exact(train, "train"), **_exact(test, "test")}
        origin = f"{train.name}, {test.name}"
        return from_arrays("cifar10", arrays, origin=origin, class_names=_CLASSES, moments=_CIFAR10_MOMENTS)
    arrays = dict(stored("datasets/cifar10", lambda: _fetch(source, CIFAR10)))
    names = arrays["class_names"].tolist()
    return from_arrays("cifar10", arrays, origin=CIFAR10.file, class_names=names, moments=_CIFAR10_MOMENTS)


def cifar100(source: Source) -> Dataset:
    """60,000 photographs in 100 (fine) classes, 32x32 RGB."""
    arrays = stored("datasets/cifar100", lambda: _fetch(source, CIFAR100))
    return from_arrays("cifar100", arrays, origin=CIFAR100.file, class_names=arrays["class_names"].tolist())


def _exact(path: Path, part: str) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        images = np.ascontiguousarray(file["images"].transpose(0, 3, 1, 2))
        return {f"{part}_images": images, f"{part}_labels": file["labels"]}


def _fetch(source: Source, archive: Archive) -> Arrays:
    from torchvision.datasets.utils import check_integrity, download_url

    local = source.in_data_dir(archive.file)
    if local and local.exists():
        if not check_integrity(local, archive.md5):
            raise MissingDataError(
                f"{local} should have md5 {archive.md5}, but has not: download it from {archive.url}"
            )
        return read_archive(local, archive)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            with impatient():
                download_url(archive.url, scratch, archive.file, archive.md5)
        except (OSError, RuntimeError) as error:
            files = f"{archive.file} (from {archive.url})"
            raise source.missing(files, [local, cache_path(f"datasets/{source.name}")], error) from error
        return read_archive(Path(scratch, archive.file), archive)


def read_archive(path: Path, archive: Archive) -> Arrays:
    """Decode ``archive`` at ``path``: the arrays of :func:`from_arrays`, and ``class_names``."""
    with tarfile.open(path) as tar:
        content = {
            Path(member.name).name: file.read() for member in tar if (file := tar.extractfile(member)) is not None
        }
    arrays: dict[str, np.ndarray[Any, Any]] = {"class_names": np.array(content[archive.names].decode().split())}
    for part, names in (("train", archive.train), ("test", archive.test)):
        records = np.frombuffer(b"".join(content[name] for name in names), np.uint8)
        records = records.reshape(-1, archive.label_bytes + np.prod(_PIXELS))
        arrays[f"{part}_labels"] = records[:, archive.label_bytes - 1].astype(np.int64)
        arrays[f"{part}_images"] = np.ascontiguousarray(records[:, archive.label_bytes :]).reshape(-1, *_PIXELS)
    return arrays
