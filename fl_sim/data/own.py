"""Your own images: one ``.npz`` file, or a folder of pictures."""

from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from fl_sim.core.errors import ConfigError
from fl_sim.core.seeds import derive
from fl_sim.data.transforms import to_square
from fl_sim.data.types import Dataset, Source, Split, channel_moments

_TEST_SHARE = 0.2
_KEYS = ("images", "labels", "test_images", "test_labels", "classes")

Array: TypeAlias = np.ndarray[Any, Any]


def npz(source: Source) -> Dataset:
    """Your own .npz at data.path: `images` uint8 (N,H,W[,C]), `labels` from 0; optionally `test_images`, `test_labels`.

    Without test images a fixed fifth is set aside, the same for every seed of a study. There are as many classes as the
    highest label says, or `classes`, where it is given.
    """
    path = source.given_path()
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {name: file[name] for name in _KEYS if name in file}
    except (ValueError, OSError, BadZipFile, AttributeError) as error:
        raise ConfigError(
            f"{path} should be an .npz of plain arrays, got {error}: write it with numpy.savez"
        ) from error
    problems = _problems(held, "", path)
    if has_test := "test_images" in held or "test_labels" in held:
        problems += _problems(held, "test_", path)
    if problems:
        raise ConfigError(problems)
    train, test = (_split(held, ""), _split(held, "test_")) if has_test else _set_aside(_split(held, ""))
    highest = int(torch.cat([train.labels, test.labels]).max())
    classes = int(held.get("classes", np.array(highest + 1)))
    if classes <= highest:
        raise ConfigError(f"{path}: classes must be above the highest label, {highest}, got {classes}: correct it")
    return _dataset("npz", path, train, test, tuple(map(str, range(classes))))


def _problems(held: dict[str, Array], prefix: str, path: Path) -> list[str]:
    """What is wrong with one split of the file; empty when nothing is."""
    absent = [f"{prefix}{key}" for key in ("images", "labels") if f"{prefix}{key}" not in held]
    if absent:
        return [f"{path} needs the key {key!r}, got {sorted(held)}: add it with numpy.savez" for key in absent]
    images, labels = held[f"{prefix}images"], held[f"{prefix}labels"]
    found = [] if images.size else [f"images must not be empty, got {images.shape}: add some"]
    if images.dtype != np.uint8:
        found.append(f"images must be uint8, got {images.dtype}: scale to 0..255 and round")
    if not (images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3))):
        found.append(f"images must be (N,H,W) or (N,H,W,C) with C of 1 or 3, got {images.shape}: transpose them")
    if labels.dtype.kind not in "iu" or labels.ndim != 1 or labels.shape != images.shape[:1]:
        found.append(
            f"labels must be one whole number an image, got {labels.dtype} {labels.shape} for images {images.shape}: "
            f"write the class number of each"
        )
    elif labels.min(initial=0) < 0:
        found.append(f"labels must be 0 or more, got {labels.min()}: number the classes from 0")
    return [f"{path}: {prefix}{problem}" for problem in found]


def _split(held: dict[str, Array], prefix: str) -> Split:
    images = torch.from_numpy(held[f"{prefix}images"])
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.from_numpy(held[f"{prefix}labels"].astype(np.int64)))


def folder(source: Source) -> Dataset:
    """Your own pictures at data.path: CLASS/*.png (or jpg, ...), or train/CLASS/* and test/CLASS/*; read as RGB.

    Pictures of different sizes need data.image_size. Without a test folder a fixed fifth is set aside.
    """
    root = source.given_path()
    if (root / "train").is_dir() and (root / "test").is_dir():
        train, names = _read_folder(root / "train", source.image_size)
        test, test_names = _read_folder(root / "test", source.image_size)
        if names != test_names:
            raise ConfigError(f"{root} needs the same classes in train and test, got {names} and {test_names}: rename")
    else:
        whole, names = _read_folder(root, source.image_size)
        train, test = _set_aside(whole)
    return _dataset("folder", root, train, test, names)


def _read_folder(root: Path, size: int | None) -> tuple[Split, tuple[str, ...]]:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms.functional import pil_to_tensor

    try:
        listing = ImageFolder(str(root))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{root} needs one folder of pictures a class, got: {error}") from error
    images: list[Tensor] = []
    for path, _ in listing.samples:
        try:
            image: Tensor = pil_to_tensor(listing.loader(path))[None]
        except OSError as error:
            raise ConfigError(f"{path} should be a picture, got {error}: repair or remove it") from error
        images.append(image if size is None else to_square(image, size))
    if len(shapes := {tuple(image.shape[-2:]) for image in images}) > 1:
        raise ConfigError(f"pictures in {root} must be of one size, got {sorted(shapes)[:3]}: set data.image_size")
    return Split(torch.cat(images), torch.tensor(listing.targets)), tuple(listing.classes)


def _set_aside(whole: Split) -> tuple[Split, Split]:
    """Training and test images: a fifth, at least one, is for testing."""
    order = torch.randperm(len(whole.labels), generator=derive(0, "test split"))
    cut = max(1, round(_TEST_SHARE * len(order)))
    train, test = order[cut:], order[:cut]
    return Split(whole.images[train], whole.labels[train]), Split(whole.images[test], whole.labels[test])


def _dataset(name: str, path: Path, train: Split, test: Split, class_names: tuple[str, ...]) -> Dataset:
    if len(train.labels) < 1 or len(test.labels) < 1 or len(class_names) < 2:
        raise ConfigError(
            f"{path} needs images to train on, images to test on and two classes, got {len(train.labels)}, "
            f"{len(test.labels)} and {len(class_names)}: add images"
        )
    if train.images.shape[1:] != test.images.shape[1:]:
        raise ConfigError(
            f"{path} needs training and test images of one shape, got (C, H, W) = {tuple(train.images.shape[1:])} "
            f"and {tuple(test.images.shape[1:])}: resize them"
        )
    mean, std = channel_moments(train.images)
    return Dataset(
        name=name, train=train, test=test, class_names=class_names, mean=mean, std=std, origin=str(path.absolute())
    )
