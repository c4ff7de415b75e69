import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fl_sim.core.errors import ConfigError, MissingDataError
from fl_sim.data import DATASETS, Dataset, Source, load
from fl_sim.data.types import channel_moments


def is_sound(data: Dataset) -> None:
    for split in (data.train, data.test):
        assert split.images.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
        assert split.images.shape == (len(split.labels), *data.image_shape)
        assert split.labels.min() >= 0
        assert split.labels.max() < data.classes
    assert len(data.mean) == len(data.std) == data.image_shape[0]


def test_digits() -> None:
    data = load(Source(name="digits"))
    is_sound(data)
    assert (len(data.train.labels), len(data.test.labels), data.image_shape) == (1437, 360, (1, 8, 8))
    assert data.train.images.max() == 255
    assert data.train.images[0, 0, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]  # 0 0 5 13 9 1 0 0 of 16
    assert data.train.labels[:5].tolist() == [0, 1, 2, 3, 4]


def test_moments_are_those_of_the_pixels() -> None:
    data = load(Source(name="digits"))
    pixels = data.train.images.double() / 255
    assert data.mean == pytest.approx([pixels.mean().item()], rel=1e-12)
    assert data.std == pytest.approx([pixels.std(correction=0).item()], rel=1e-12)


def test_std_is_never_zero() -> None:
    assert channel_moments(torch.zeros(2, 1, 3, 3, dtype=torch.uint8)) == ((0.0,), (1 / 255,))


def test_mnist_is_read_without_writing_next_to_it(real_data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(real_data / "mnist", copy / "mnist")
    before = {path: hashlib.md5(path.read_bytes()).hexdigest() for path in copy.rglob("*") if path.is_file()}
    data = load(Source(name="mnist", data_dir=str(copy)))
    is_sound(data)
    assert (len(data.train.labels), len(data.test.labels), data.image_shape) == (60000, 10000, (1, 28, 28))
    assert data.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert channel_moments(data.train.images)[0] == pytest.approx(data.mean, abs=1e-4)
    assert channel_moments(data.train.images)[1] == pytest.approx(data.std, abs=1e-4)
    after = {path: hashlib.md5(path.read_bytes()).hexdigest() for path in copy.rglob("*") if path.is_file()}
    assert after == before
    second_process = "import sys; from fl_sim.data import Source, load; load(Source(name='mnist', data_dir='/nowhere'))"
    subprocess.run([sys.executable, "-c", f"{second_process}; assert 'torchvision' not in sys.modules"], check=True)


def test_cifar10_exact_subset(real_data: Path) -> None:
    data = load(Source(name="cifar10", data_dir=str(real_data)))
    is_sound(data)
    assert (len(data.train.labels), len(data.test.labels), data.image_shape) == (8068, 517, (3, 32, 32))
    assert channel_moments(data.train.images)[0] == pytest.approx(data.mean, abs=0.01)
    assert "exact" in data.origin


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "t10k-labels-idx1-ubyte.gz"),
        ("cifar10", "cifar-10-binary.tar.gz"),
        ("cifar100", "far-100-binary.tar.gz"),
    ],
)
def test_missing_data_says_where_it_looked_and_what_to_do(name: str, file: str, tmp_path: Path, cache: Path) -> None:
    with pytest.raises(MissingDataError) as refused:
        load(Source(name=name, data_dir=str(tmp_path / "data")))
    message = str(refused.value)
    for part in (file, str(tmp_path / "data"), str(cache), "FL_SIM_DATA", "--data-dir", "network is unreachable"):
        assert part in message
    assert not list(cache.rglob("*.npz"))


@pytest.mark.usefixtures("no_network")
def test_without_a_data_folder_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FL_SIM_DATA", raising=False)
    with pytest.raises(MissingDataError, match="FL_SIM_DATA is not set"):
        load(Source(name="cifar100"))


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"digits, mnist, .*did you mean 'cifar10'"):
        load(Source(name="cifar-10"))


def test_images_are_resized_on_request() -> None:
    data = load(Source(name="digits", image_size=12))
    is_sound(data)
    assert data.image_shape == (1, 12, 12)


def test_is_loaded_once_a_process() -> None:
    assert load(Source(name="digits")) is load(Source(name="digits"))


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_entry_has_a_line_for_the_list(name: str) -> None:
    assert len((DATASETS[name].__doc__ or "").splitlines()[0]) > 20


def test_images_are_selected_by_split_and_slice() -> None:
    data = load(Source(name="digits"))
    assert torch.equal(data.select("test").images, data.test.images)
    part = data.select("train[10:30]")
    assert torch.equal(part.images, data.train.images[10:30])
    assert torch.equal(part.labels, data.train.labels[10:30])
    assert len(data.select("train[:50000]").labels) == 1437
    assert len(data.select("test[350:]").labels) == 10


@pytest.mark.parametrize(
    ("which", "message"),
    [("all", "expected train, test or a slice"), ("train[1]", "or a slice"), ("test[360:]", "digits has 360 in test")],
)
def test_a_selection_of_nothing_is_refused(which: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(Source(name="digits")).select(which)
