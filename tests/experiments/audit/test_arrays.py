"""Files of other tools, and files that would run code if they were unpickled."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from experiments.audit.arrays import is_list, read, read_images
from fl_sim.core.errors import ConfigError
from tests.conftest import TASK

STATE = {"b": torch.arange(6.0).view(2, 3), "a": torch.ones(2, dtype=torch.float64), "n": torch.tensor(3)}


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return Path.write_text, (self.place, "boom")  # type: ignore[return-value]


def write(folder: Path, way: str) -> Path:
    path = folder / f"state{way if way.startswith('.') else '.pt'}"
    if way == ".safetensors":
        safetensors.torch.save_file(STATE, path)
    elif way == ".npz":
        np.savez(path, a=STATE["a"].numpy(), b=STATE["b"].numpy(), n=STATE["n"].numpy())
    else:
        torch.save({"epoch": 3, "model": STATE} if way == "nested" else STATE, path)
    return path


@pytest.mark.parametrize("way", [".safetensors", ".npz", ".pt", ".pth", ".bin", "nested"])
def test_every_kind_of_file_gives_the_same_arrays(way: str, tmp_path: Path) -> None:
    found = read(write(tmp_path, way))
    assert sorted(found) == sorted(STATE)
    assert all(torch.equal(found[name], t.float() if t.is_floating_point() else t) for name, t in STATE.items())
    assert found["a"].dtype == torch.float32
    assert not is_list(found)


def test_lists_keep_their_order_beyond_ten(tmp_path: Path) -> None:
    arrays = [np.full(2, float(i)) for i in range(12)]
    np.savez(tmp_path / "list.npz", *arrays)
    torch.save([torch.tensor(a) for a in arrays], tmp_path / "list.pt")
    for name in ("list.npz", "list.pt"):
        found = read(tmp_path / name)
        assert is_list(found)
        assert [float(t[0]) for t in found.values()] == list(range(12))


@pytest.mark.parametrize("name", ["bomb.pt", "bomb.npz", "bomb.bin"])
def test_nothing_is_unpickled(name: str, tmp_path: Path) -> None:
    place, path = tmp_path / "boom", tmp_path / name
    if name.endswith(".npz"):
        np.savez(path, a=np.array([Bomb(place)], dtype=object))
    elif name.endswith(".pt"):
        torch.save({"a": torch.ones(1), "b": Bomb(place)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(place)))
    with pytest.raises(ConfigError):
        read(path)
    assert not place.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pkl", b"", "expected one of .safetensors, .npz, .pt"),
        ("a.npz", b"no zip", "expected arrays"),
        ("a.npz", b"", "expected arrays"),
        ("a.safetensors", b"nothing", "expected arrays"),
        ("a.pt", b"nothing", "weights_only"),
    ],
)
def test_other_files_are_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read(tmp_path / name)


def test_words_are_no_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", weights=np.ones(2), names=np.array(["fc.weight"]))
    with pytest.raises(ConfigError, match="expected arrays of numbers"):
        read(tmp_path / "a.npz")


def test_images_are_of_bytes_or_of_numbers_up_to_one(tmp_path: Path) -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    np.savez(tmp_path / "bytes.npz", images=grey, labels=np.array([3]))
    np.savez(tmp_path / "unit.npz", images=grey[:, None] / 255, labels=np.array([3]))
    pair = [read_images(tmp_path / name, TASK) for name in ("bytes.npz", "unit.npz")]
    assert torch.allclose(pair[0].images, pair[1].images)
    assert pair[0].labels.tolist() == [3]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.full((1, 1, 8, 8), 1.5), np.array([3]), "before any normalisation"),
        (np.full((1, 1, 8, 8), np.nan), np.array([3]), "before any normalisation"),
        (np.zeros((0, 1, 8, 8)), np.array([], dtype=np.int64), "expected images, got none"),
        (np.zeros(64, dtype=np.uint8), np.array([3]), "expected images"),
        (np.zeros((1, 3, 8, 8)), np.array([3]), "expected images"),
        (np.zeros((1, 1, 8, 8)), np.array([10]), "labels in 0..9"),
        (np.zeros((2, 1, 8, 8)), np.array([1]), "expected 2 labels"),
    ],
)
def test_a_truth_that_cannot_be_one_is_refused(
    images: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]",
    labels: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]",
    message: str,
    tmp_path: Path,
) -> None:
    np.savez(tmp_path / "truth.npz", images=images, labels=labels)
    with pytest.raises(ConfigError, match=message):
        read_images(tmp_path / "truth.npz", TASK)
