"""Generators in files: what ``fl-sim train-prior --kind gan`` and ``fl-sim convert-generator`` write."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from attacks import stored
from attacks.generators.base import Generator
from attacks.generators.biggan import BigGANDeep
from attacks.generators.dcgan import DCGAN
from attacks.generators.mlp import MLP
from attacks.generators.staged import Staged
from attacks.generators.stylegan2 import StyleGAN2
from attacks.stored import Version
from fl_sim.core.errors import ConfigError
from fl_sim.core.part import part
from fl_sim.core.types import Tensors

GENERATORS: Mapping[str, Callable[..., Generator]] = MappingProxyType(
    {"staged": Staged, "dcgan": DCGAN, "mlp": MLP, "biggan_deep": BigGANDeep, "stylegan2": StyleGAN2}
)
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
    advice = (
        "correct the path of the generator, or make one with `fl-sim train-prior --kind gan --data NAME` or, "
        "of a public file, with `fl-sim convert-generator`"
    )
    return _loaded(Version.of(place(path), advice), device)[0]


def about(path: str) -> About:
    """What the file says of itself; as :func:`load`."""
    return _loaded(Version.of(place(path), "correct the path of the generator"), "cpu")[1]


def built(architecture: str, options: Mapping[str, Any], tensors: Tensors, what: str) -> Generator:
    """In eval mode, its weights fixed. Nothing is drawn for weights that are there.

    Raises:
        ConfigError: Options or tensors are not the architecture's; ``what`` opens the message.
    """
    try:
        with torch.device("meta"):
            generator = GENERATORS[architecture](**{name: _tupled(value) for name, value in options.items()})
        generator.load_state_dict(dict(tensors), assign=True)
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{what} does not fit the architecture {architecture}: {error}") from error
    return generator.eval().requires_grad_(requires_grad=False)


def _tupled(value: Any) -> Any:
    """JSON has no tuples."""
    return tuple(value) if isinstance(value, list) else value


@lru_cache(maxsize=4)
def _loaded(version: Version, device: str) -> tuple[Generator, About]:
    tensors, about = stored.read(version, About, "a generator made by `fl-sim train-prior` or `convert-generator`")
    if about.architecture not in GENERATORS:
        raise ConfigError(f"{version.path}: expected one of {', '.join(GENERATORS)}, got {about.architecture!r}")
    return built(about.architecture, about.options, tensors, str(version.path)).to(device), about
