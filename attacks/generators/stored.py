"""Generators in files: what ``fl-sim train-prior --kind gan`` and ``fl-sim convert-generator`` write."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attacks import stored
from attacks.generators.base import Generator
from attacks.generators.dcgan import DCGAN
from attacks.generators.mlp import MLP
from attacks.generators.staged import Staged
from attacks.stored import Version
from fl_sim.core.errors import ConfigError
from fl_sim.core.part import part

GENERATORS: Mapping[str, Callable[..., Generator]] = MappingProxyType({"staged": Staged, "dcgan": DCGAN, "mlp": MLP})
"""Architectures by name; a file says which, and its options."""


_BUNDLED = Path(__file__).with_name("weights")


@part
class About:
    """What a file's generator is, and where it comes from; JSON in the file's metadata, under ``about``.

    Args:
        architecture: One of ``GENERATORS``.
        options: Of the architecture.
        data: Name of what it was trained on.
        origin: Where the pixels, or the weights, were read from.
        figures: Of its quality, as far as they were measured.
        made: Options of the training, its seed, versions of programs; the digest of a file that was converted.
    """

    architecture: str
    options: Mapping[str, Any]
    data: str
    origin: str
    figures: Mapping[str, float]
    made: Mapping[str, Any]


def place(name: str) -> str:
    """The file of a bundled generator by its name, ``digits``; anything else is a path already."""
    bundled = {file.stem: str(file) for file in _BUNDLED.glob("*.safetensors")}
    return bundled.get(name, name)


def load(path: str, device: str = "cpu") -> Generator:
    """The generator in a file, in eval mode, its weights fixed; read once a process.

    Args:
        path: Or the name of a bundled one, see :func:`place`.
        device: Where its weights are to be.

    Raises:
        MissingDataError: There is no file.
        ConfigError: It holds something else.
    """
    advice = "correct the path of the generator, or make one with `fl-sim train-prior --kind gan --data NAME`"
    return _loaded(Version.of(place(path), advice), device)[0]


def about(path: str) -> About:
    """What the file says of itself; as :func:`load`."""
    return _loaded(Version.of(place(path), "correct the path of the generator"), "cpu")[1]


@lru_cache(maxsize=4)
def _loaded(version: Version, device: str) -> tuple[Generator, About]:
    tensors, about = stored.read(version, About, "a generator made by `fl-sim train-prior` or `convert-generator`")
    if about.architecture not in GENERATORS:
        raise ConfigError(f"{version.path}: expected one of {', '.join(GENERATORS)}, got {about.architecture!r}")
    generator = GENERATORS[about.architecture](**about.options)
    try:
        generator.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise ConfigError(f"{version.path} does not fit the architecture {about.architecture}: {error}") from error
    return generator.to(device).eval().requires_grad_(requires_grad=False), about
