"""Priors in files: what ``fl-sim train-prior`` writes and the fitted priors read; safetensors, nothing pickled."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from attacks import stored
from attacks.priors.base import Density
from attacks.stored import Version
from fl_sim.core.errors import ConfigError
from fl_sim.core.part import part
from fl_sim.core.types import Observation, Tensors

Kind: TypeAlias = Literal["gaussian", "mixture", "vae"]


@part
class About:
    """What a file's prior is of, and how it was made; JSON in the file's metadata, under ``about``.

    Args:
        kind: Which tensors there are.
        data: Name of the data set.
        origin: Where its pixels were read from.
        split: Which of its images; never those that clients hold.
        image_shape: ``(C, H, W)``.
        mean: Per channel, in [0, 1] units; the prior is over ``(x - mean) / std``.
        std: As ``mean``.
        images: How many it was fitted to.
        held_out: How many others chose its options and gave the figures.
        seed: Of the choice of images, and of the fit.
        options: Of the fit, chosen or given.
        figures: Of the result, such as ``held_out_nats``.
        versions: Of the programs that made it.
    """

    kind: Kind
    data: str
    origin: str
    split: str
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    images: int
    held_out: int
    seed: int
    options: Mapping[str, Any]
    figures: Mapping[str, float]
    versions: Mapping[str, str]

    def vectors(self, images: Tensor) -> Tensor:
        """``(M, C, H, W)`` in [0, 1] units to ``(M, C*H*W)`` in the prior's units."""
        mean, std = (torch.tensor(moments, device=images.device).view(-1, 1, 1) for moments in (self.mean, self.std))
        return ((images - mean) / std).flatten(1)


def current(path: str) -> Version:
    """Of the prior at ``path``, which must exist."""
    make = f"`fl-sim train-prior --kind {{gaussian,mixture,vae}} --data NAME --out {path}`"
    return Version.of(path, f"correct the path of the prior, or make one with {make}")


def read(version: Version, kinds: Sequence[Kind]) -> tuple[Tensors, About]:
    """Tensors and metadata of a prior of one of ``kinds``."""
    tensors, about = stored.read(version, About, "a prior made by `fl-sim train-prior`")
    if about.kind not in kinds:
        raise ConfigError(
            f"{version.path} should hold a prior of kind {' or '.join(kinds)}, got {about.kind}: a gaussian or mixture "
            f"is the prior `mixture`, a vae the prior `vae`; or train another with `fl-sim train-prior --kind "
            f"{kinds[-1]}`"
        )
    return tensors, about


@part
class FittedPrior(Density):
    """A density over images as its file normalises them, which is as its data set does.

    Another task's normalisation moves ``log p`` by a constant only.

    Args:
        path: Of the file; it must be of images of the task's shape.
    """

    kinds: ClassVar[tuple[Kind, ...]]

    path: str

    def __post_init__(self) -> None:
        current(self.path)  # refuses now what would fail after training

    def check(self, seen: Observation, model: nn.Module) -> None:
        del model
        _, about = read(current(self.path), self.kinds)
        if about.image_shape != seen.task.image_shape:
            raise ConfigError(
                f"{self.path} should be a prior of images (C, H, W) = {seen.task.image_shape}, got one of "
                f"{about.image_shape} (data set {about.data}): train one on images like the study's with "
                "`fl-sim train-prior`"
            )
