"""LPIPS, a learned perceptual distance (Zhang et al. 2018, arXiv:1801.03924), with the SqueezeNet 1.1 backbone.

The backbone's weights are not part of the ``lpips`` package. They are looked for in the data folder, then in the cache,
then downloaded once; where none of this works the metric is :class:`Unavailable`, with the reason.
"""

import hashlib
import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_sim.core.errors import FlSimError, MissingDataError
from fl_sim.core.places import cache_dir
from fl_sim.metrics.image import check_pair

_URL = "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth"
_SHA256_PREFIX = "b8a52dc0"
_TIMEOUT = 5  # seconds without an answer
_SMALLEST = 64  # pixels


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Why a metric cannot be computed; goes into the report in its place."""

    reason: str


class Lpips:
    """Perceptual distance of image pairs: 0 is equal, more is less alike. Build it with :meth:`load`."""

    settings = (
        "lpips 0.1, SqueezeNet 1.1 backbone, linear layers as published; grey repeated to RGB, [0, 1] scaled to "
        f"[-1, 1], images below {_SMALLEST} pixels upsampled bilinearly so that the shorter side has {_SMALLEST}"
    )

    def __init__(self, net: nn.Module) -> None:
        self._net = net

    @classmethod
    def load(cls, data_dir: Path | None = None) -> "Lpips | Unavailable":
        """Find the weights in ``data_dir`` (else ``FL_SIM_DATA``), the cache, or the network, in this order."""
        try:
            return cls(_build(_find_weights(data_dir)))
        except MissingDataError as error:
            return Unavailable(str(error))

    @torch.no_grad()
    def __call__(self, guess: Tensor, truth: Tensor) -> Tensor:
        """``(N, C, H, W)`` pairs in [0, 1], C 1 or 3, to ``(N,)``."""
        check_pair(guess, truth)
        if guess.shape[1] not in (1, 3):
            raise FlSimError(f"LPIPS needs grey or RGB images, got {guess.shape[1]} channels: leave LPIPS out")
        return self.of_any(guess * 2 - 1, truth * 2 - 1)

    @torch.no_grad()
    def of_any(self, guess: Tensor, truth: Tensor) -> Tensor:
        """Of values as they are; LPIPS was fitted to those in [-1, 1]."""
        distances: Tensor = self._net(_prepare(guess), _prepare(truth))
        return distances.reshape(len(guess))


def _prepare(images: Tensor) -> Tensor:
    """To RGB, the shorter side at least ``_SMALLEST`` pixels."""
    images = images.cpu().expand(-1, 3, -1, -1)
    factor = _SMALLEST / min(images.shape[-2:])
    if factor > 1:
        size = [round(side * factor) for side in images.shape[-2:]]
        images = functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
    return images


def _build(path: Path) -> nn.Module:
    """The network with the backbone weights of ``path``; leaves torch's global generator as it was."""
    from lpips import LPIPS

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # torchvision's, on the way lpips calls it
        net: nn.Module = LPIPS(net="squeeze", pnet_rand=True, verbose=False)
    backbone = net.get_submodule("net")
    saved = _read(path)
    try:
        weights = {name: saved["features." + name.split(".", 1)[1]] for name in backbone.state_dict()}
        backbone.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        raise MissingDataError(
            f"{path} does not hold SqueezeNet 1.1's feature layers ({error}): put the original there"
        ) from error
    return net.eval().requires_grad_(False)


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        saved: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises almost anything
        raise MissingDataError(f"{path} cannot be read as weights ({error}): put the original in its place") from error
    return saved


def weights_found(data_dir: Path | None = None) -> Path | None:
    """The backbone's weights, where they are here already; ``None``: they would be downloaded."""
    folder = data_dir or os.environ.get("FL_SIM_DATA")
    given = Path(folder or ".") / "weights" / "squeezenet1_1_features.pth"
    if folder and given.is_file():
        return given
    return _cached() if _cached().is_file() else None


def _cached() -> Path:
    return cache_dir() / _URL.rpartition("/")[2]


def _find_weights(data_dir: Path | None) -> Path:
    if (found := weights_found(data_dir)) is not None:
        return found
    _download(_cached())
    return _cached()


def _download(target: Path) -> None:
    """Fetch the weights whole and checked, or raise with the reason; ``target`` never holds half a file."""
    try:
        with urlopen(_URL, timeout=_TIMEOUT) as answer:
            content: bytes = answer.read()
        if not (digest := hashlib.sha256(content).hexdigest()).startswith(_SHA256_PREFIX):
            raise MissingDataError(f"{_URL} has sha256 {digest}, expected {_SHA256_PREFIX}...: do not use this network")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
            file.write(content)
        Path(file.name).replace(target)
    except (OSError, HTTPException) as error:
        raise MissingDataError(
            f"LPIPS weights: none under FL_SIM_DATA/weights, none in {target.parent}, and {_URL} cannot be fetched "
            f"({error}): put squeezenet1_1-b8a52dc0.pth into {target.parent}"
        ) from error
