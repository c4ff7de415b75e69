"""Generators in files: what ``fl-sim train-prior --kind gan`` and ``fl-sim convert-generator`` write."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from attacks import stored
from attacks.generators.base import Generator
from attacks.generators.biggan import BigGANDeep
from attacks.generators.classifier import Classifier
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
_CLASSIFIER = "classifier."  # before the names of its tensors


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
        classifier: Options of the classifier of its classes in the same file, beside their number; ``None``: none.
    """

    architecture: str
    options: Mapping[str, Any]
    data: str
    origin: str
    figures: Mapping[str, float]
    made: Mapping[str, Any]
    classifier: Mapping[str, Any] | None = None


class Stored(NamedTuple):
    """What a file holds, in eval mode, its weights fixed."""

    generator: Generator
    classifier: Classifier | None
    about: About


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
    return _stored(path, device).generator


def about(path: str) -> About:
    """What the file says of itself; as :func:`load`."""
    return _stored(path, "cpu").about


def classifier(path: str, device: str = "cpu") -> Classifier:
    """That of the generator's classes, for images as it makes them; as :func:`load`.

    Raises:
        ConfigError: The file has none.
    """
    found = _stored(path, device).classifier
    if found is None:
        raise ConfigError(
            f"expected a generator with a classifier of its classes, got {path}, which has none: make one with "
            "`fl-sim train-prior --kind gan --architecture staged`, which trains both"
        )
    return found


def together(generator: Generator, classifier: Classifier) -> Tensors:
    """The tensors of a file; without the classifier where the generator has no classes."""
    beside = classifier.state_dict() if generator.classes else {}
    return {**generator.state_dict(), **{_CLASSIFIER + name: t for name, t in beside.items()}}


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


def _stored(path: str, device: str) -> Stored:
    advice = (
        "correct the path of the generator, or make one with `fl-sim train-prior --kind gan --data NAME` or, "
        "of a public file, with `fl-sim convert-generator`"
    )
    return _loaded(Version.of(place(path), advice), device)


@lru_cache(maxsize=4)
def _loaded(version: Version, device: str) -> Stored:
    tensors, about = stored.read(version, About, "a generator made by `fl-sim train-prior` or `convert-generator`")
    if about.architecture not in GENERATORS:
        raise ConfigError(f"{version.path}: expected one of {', '.join(GENERATORS)}, got {about.architecture!r}")
    beside = {name.removeprefix(_CLASSIFIER): t for name, t in tensors.items() if name.startswith(_CLASSIFIER)}
    own = {name: t for name, t in tensors.items() if not name.startswith(_CLASSIFIER)}
    generator = built(about.architecture, about.options, own, str(version.path)).to(device)
    return Stored(generator, _classifier(generator, about, beside, version), about)


def _classifier(generator: Generator, about: About, tensors: Tensors, version: Version) -> Classifier | None:
    if about.classifier is None:
        return None
    try:
        with torch.device("meta"):
            network = Classifier(generator.image_shape, generator.classes, **about.classifier)
        network.load_state_dict(dict(tensors), assign=True)
    except (TypeError, RuntimeError) as error:
        raise ConfigError(f"{version.path}: the classifier does not fit its options: {error}") from error
    device = next(generator.parameters()).device
    return network.to(device).eval().requires_grad_(requires_grad=False)
