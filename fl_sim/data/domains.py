"""MNIST in other domains: out of the distribution of a generator that was trained on handwritten digits."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from torch import Tensor

from fl_sim.data.published import mnist
from fl_sim.data.types import Dataset, Source, Split, channel_moments

_SHIFT = 3  # classes
BASES: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("mnist_inverted", "mnist_rotated", "mnist_renamed"), "mnist")
)
"""Whose images the data sets here are."""


def mnist_inverted(source: Source) -> Dataset:
    """MNIST, dark on light: its negative."""
    return _changed(source, "inverted", lambda images: 255 - images, lambda labels: labels)


def mnist_rotated(source: Source) -> Dataset:
    """MNIST, a quarter turn to the left."""
    return _changed(source, "rotated", lambda images: images.rot90(dims=(2, 3)), lambda labels: labels)


def mnist_renamed(source: Source) -> Dataset:
    """MNIST whose classes have other numbers: a digit d is of class (d + 3) mod 10."""
    names = tuple(str((number - _SHIFT) % 10) for number in range(10))
    found = _changed(source, "renamed", lambda images: images, lambda labels: (labels + _SHIFT) % 10)
    return replace(found, class_names=names)


def _changed(source: Source, how: str, image: Callable[[Tensor], Tensor], label: Callable[[Tensor], Tensor]) -> Dataset:
    plain = mnist(source)
    train, test = (Split(image(split.images).contiguous(), label(split.labels)) for split in (plain.train, plain.test))
    mean, std = channel_moments(train.images)
    return replace(plain, name=f"mnist_{how}", train=train, test=test, mean=mean, std=std)
