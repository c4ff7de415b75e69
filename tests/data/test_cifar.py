import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from fl_sim.core.errors import MissingDataError
from fl_sim.data import Source, load
from fl_sim.data.cifar import CIFAR10, CIFAR100, Archive, read_archive


def write_archive(path: Path, archive: Archive, names: list[str]) -> dict[str, np.ndarray]:
    """A tiny archive in the published layout, two records a file; the records by file."""
    draw = np.random.default_rng(0)
    files = {
        name: draw.integers(0, 10, (2, archive.label_bytes + 3072), np.uint8) for name in archive.train + archive.test
    }
    with tarfile.open(path, "w:gz") as tar:
        for name, content in {
            **{name: records.tobytes() for name, records in files.items()},
            archive.names: "\n".join([*names, ""]).encode(),
        }.items():
            member = tarfile.TarInfo(f"folder/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return files


@pytest.mark.parametrize("archive", [CIFAR10, CIFAR100], ids=["cifar10", "cifar100"])
def test_records_are_decoded(archive: Archive, tmp_path: Path) -> None:
    names = [f"class{i}" for i in range(10)]
    files = write_archive(tmp_path / archive.file, archive, names)
    arrays = read_archive(tmp_path / archive.file, archive)
    last = files[archive.train[-1]][-1]
    assert arrays["class_names"].tolist() == names
    assert arrays["train_images"].shape == (2 * len(archive.train), 3, 32, 32)
    assert arrays["train_labels"][-1] == last[archive.label_bytes - 1]
    assert arrays["train_images"][-1, 2, 31, 31] == last[-1]  # channels first: blue, bottom right
    assert arrays["train_images"][-1, 0, 0, 1] == last[archive.label_bytes + 1]
    assert arrays["test_labels"].dtype == np.int64


def test_an_archive_in_the_data_folder_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.utils.check_integrity", lambda *_: True)
    write_archive(tmp_path / CIFAR10.file, CIFAR10, [f"class{i}" for i in range(10)])
    data = load(Source(name="cifar10", data_dir=str(tmp_path)))
    assert (len(data.train.labels), data.class_names[9], data.origin) == (10, "class9", CIFAR10.file)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    write_archive(tmp_path / CIFAR100.file, CIFAR100, ["a"])
    with pytest.raises(MissingDataError, match=CIFAR100.md5):
        load(Source(name="cifar100", data_dir=str(tmp_path)))
