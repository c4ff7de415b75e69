"""Small published data sets of grey digits."""

import contextlib
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fl_sim.data.cache import Arrays, cache_path, stored
from fl_sim.data.types import Dataset, Source, from_arrays

_PATIENCE = 15.0  # seconds a silent server is waited for
MNIST_FILES = tuple(
    f"{part}-{kind}.gz" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
)
MNIST_PLACES = ("mnist/MNIST/raw", "MNIST/raw")  # in FL_SIM_DATA
_TEST_DIGITS = 360


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """Downloads inside give up on a silent network after seconds, and print to stderr only."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        socket.setdefaulttimeout(before)


def digits(_: Source) -> Dataset:
    """1,797 handwritten digits, 8x8 grey, bundled with scikit-learn: needs no file and no network.

    The last 360 images are the test split. Values 0..16 are rounded to 0..255: at most half a grey level off.
    """
    arrays = stored("datasets/digits", _decode_digits)
    return from_arrays("digits", arrays, origin="sklearn.datasets.load_digits", class_names=list("0123456789"))


def _decode_digits() -> Arrays:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = np.round(images * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    train, test = slice(None, -_TEST_DIGITS), slice(-_TEST_DIGITS, None)
    return {
        "train_images": pixels[train],
        "train_labels": labels[train].astype(np.int64),
        "test_images": pixels[test],
        "test_labels": labels[test].astype(np.int64),
    }


def mnist(source: Source) -> Dataset:
    """70,000 handwritten digits, 28x28 grey (LeCun et al. 1998); from FL_SIM_DATA, else downloaded."""
    arrays = stored("datasets/mnist", lambda: _decode_mnist(source))
    moments = ((0.1307,), (0.3081,))
    return from_arrays("mnist", arrays, origin="MNIST", class_names=list("0123456789"), moments=moments)


def _decode_mnist(source: Source) -> Arrays:
    """Torchvision unpacks next to the archives and replaces damaged ones, so it works on copies."""
    from torchvision.datasets import MNIST

    places = [source.in_data_dir(place) for place in MNIST_PLACES]
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch, "MNIST", "raw")
        raw.mkdir(parents=True)
        for file in [place / name for place in places if place for name in MNIST_FILES]:
            if file.exists():
                shutil.copyfile(file, raw / file.name)
        try:
            with impatient():
                train, test = (MNIST(scratch, train=part, download=True) for part in (True, False))
        except (OSError, RuntimeError) as error:
            raise source.missing(", ".join(MNIST_FILES), [*places, cache_path("datasets/mnist")], error) from error
    return {
        "train_images": train.data.unsqueeze(1).numpy(),
        "train_labels": train.targets.numpy(),
        "test_images": test.data.unsqueeze(1).numpy(),
        "test_labels": test.targets.numpy(),
    }
