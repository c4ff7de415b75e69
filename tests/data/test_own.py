from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from PIL import Image

from fl_sim.core.errors import ConfigError, MissingDataError
from fl_sim.data import Dataset, Source, load

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 6, 5, 3), np.uint8)
LABELS = np.arange(10) % 3

Array: TypeAlias = np.ndarray[Any, Any]


def from_npz(path: Path, **arrays: Array) -> Dataset:
    with path.open("wb") as file:
        np.savez(file, allow_pickle=True, **arrays)
    return load(Source(name="npz", path=str(path)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "own.npz"


def test_a_fifth_is_set_aside(file: Path) -> None:
    data = from_npz(file, images=IMAGES, labels=LABELS)
    assert (len(data.train.labels), len(data.test.labels), data.classes) == (8, 2, 3)
    assert data.image_shape == (3, 6, 5)
    seen = torch.cat([data.train.images, data.test.images]).permute(0, 2, 3, 1)
    assert sorted(map(bytes, seen.contiguous().numpy())) == sorted(map(bytes, IMAGES))


def test_classes_without_images_are_counted_where_the_file_says_so(file: Path) -> None:
    assert from_npz(file, images=IMAGES, labels=LABELS, classes=np.array(1000)).classes == 1000
    with pytest.raises(ConfigError, match="above the highest label, 2, got 2"):
        from_npz(file.with_name("few.npz"), images=IMAGES, labels=LABELS, classes=np.array(2))


def test_images_keep_their_labels(file: Path) -> None:
    data = from_npz(file, images=IMAGES, labels=LABELS)
    label_of = {bytes(image): label for image, label in zip(IMAGES, LABELS, strict=True)}
    for image, label in zip(data.train.images, data.train.labels, strict=True):
        assert label_of[bytes(image.permute(1, 2, 0).contiguous().numpy())] == label


def test_test_images_of_your_own_are_used(file: Path) -> None:
    data = from_npz(file, images=IMAGES[..., 0], labels=LABELS, test_images=IMAGES[:4, :, :, 0], test_labels=LABELS[:4])
    assert (len(data.train.labels), len(data.test.labels), data.image_shape) == (10, 4, (1, 6, 5))
    assert torch.equal(data.test.images[:, 0], torch.from_numpy(IMAGES[:4, :, :, 0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "needs the key 'images'"),
        ({"labels": None}, "needs the key 'labels'"),
        ({"images": IMAGES / 255}, "images must be uint8, got float64"),
        ({"images": IMAGES.transpose(0, 3, 1, 2)}, "transpose"),
        ({"images": IMAGES[:3]}, "labels must be one whole number an image"),
        ({"labels": LABELS.astype(str)}, "labels must be one whole number an image"),
        ({"labels": LABELS - 1}, "labels must be 0 or more, got -1"),
        ({"labels": LABELS * 0}, "two classes"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "images must not be empty"),
        ({"images": IMAGES[:1], "labels": LABELS[:1]}, "images to train on"),
        ({"test_images": IMAGES}, "needs the key 'test_labels'"),
        ({"test_images": IMAGES[:, :4], "test_labels": LABELS}, "one shape"),
        ({"labels": LABELS.astype(object)}, "plain arrays"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(file: Path, change: dict[str, Any], message: str) -> None:
    arrays = {"images": IMAGES, "labels": LABELS, **change}
    with pytest.raises(ConfigError, match=message):
        from_npz(file, **{name: array for name, array in arrays.items() if array is not None})


def test_all_problems_come_at_once(file: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        from_npz(file, images=IMAGES / 255, labels=LABELS - 1)
    assert len(refused.value.problems) == 2


def test_something_else_than_an_npz_is_refused(file: Path) -> None:
    file.write_text("hello")
    with pytest.raises(ConfigError, match="plain arrays"):
        load(Source(name="npz", path=str(file)))


def test_a_path_is_needed_and_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set data\.path"):
        load(Source(name="npz"))
    with pytest.raises(MissingDataError, match="does not exist"):
        load(Source(name="folder", path=str(tmp_path / "nowhere")))


def write_pictures(root: Path, sizes: dict[str, tuple[int, int]]) -> None:
    for i, (place, size) in enumerate(sizes.items()):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB" if i % 2 else "L", size, 10 * i if i % 2 == 0 else (10 * i, 0, 0)).save(root / place)


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    write_pictures(tmp_path, {f"{name}/{i}.png": (20 + i, 30) for name in ("cat", "dog") for i in range(5)})
    data = load(Source(name="folder", path=str(tmp_path), image_size=16))
    assert (len(data.train.labels), len(data.test.labels)) == (8, 2)
    assert (data.image_shape, data.class_names) == ((3, 16, 16), ("cat", "dog"))


def test_a_folder_with_a_test_split(tmp_path: Path) -> None:
    write_pictures(tmp_path, {f"{split}/{name}/0.png": (4, 4) for split in ("train", "test") for name in ("a", "b")})
    data = load(Source(name="folder", path=str(tmp_path)))
    assert (len(data.train.labels), len(data.test.labels)) == (2, 2)
    assert data.train.images[0].max() == 0
    assert data.test.images[1, :, 0, 0].tolist() == [30, 0, 0]


def test_pictures_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"a/0.png": (4, 4), "b/0.png": (5, 4)})
    with pytest.raises(ConfigError, match=r"set data\.image_size"):
        load(Source(name="folder", path=str(tmp_path)))


def test_unusable_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one folder of pictures a class"):
        load(Source(name="folder", path=str(tmp_path)))
    write_pictures(tmp_path, {"train/a/0.png": (4, 4), "train/b/0.png": (4, 4), "test/a/0.png": (4, 4)})
    with pytest.raises(ConfigError, match="same classes"):
        load(Source(name="folder", path=str(tmp_path)))
    (tmp_path / "train/a/0.png").write_text("not a picture")
    with pytest.raises(ConfigError, match="should be a picture"):
        load(Source(name="folder", path=str(tmp_path)))
