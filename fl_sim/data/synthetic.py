"""Worlds whose distribution is known exactly, as images: vectors of the experiments of arXiv 2111.04706.

A vector ``v`` of d normal numbers is the normalised image: pixel = mean + std * v, with the data set's mean and std, so
that ``(pixel - mean) / std`` is ``v`` up to the rounding of float32 (below 1e-6). Pixels are float32, not of 256
levels, and clamped to [0, 1], which is 5 standard deviations away or more: one number in 1.7 million at most. Nothing
is read or downloaded; the numbers are the same on every machine and for every seed of a study.
"""

import torch
from torch import Tensor

from fl_sim.core.errors import ConfigError
from fl_sim.core.seeds import derive
from fl_sim.data.types import Dataset, Source, Split

_SIDE = 8  # pixels, where data.image_size does not say
_EACH = 1000  # images of either split
_CLASSES = 10  # of dist_gaussian
_AWAY = 2.0  # of dist_gmm's means from 0
_MEAN = 0.5


def dist_gaussian(source: Source) -> Dataset:
    """Synthetic: N(0, I) as images of 8x8 (or data.image_size) pixels, classes argmax of x^T W; its prior is exact.

    ``W`` is ``(d, 10)`` of N(0, 1), fixed; 1,000 training and 1,000 test images (``dist_gaussian_d_C``).
    """
    side = source.image_size or _SIDE
    projection = _normal("dist_gaussian", "projection", side**2, _CLASSES)

    def split(part: str) -> Split:
        vectors = _normal("dist_gaussian", part, _EACH, side**2)
        return Split(_images(vectors, side, 0.1), (vectors @ projection).argmax(1))

    return _dataset("dist_gaussian", split("train"), split("test"), _CLASSES, 0.1)


def dist_gmm(source: Source) -> Dataset:
    """Synthetic: four unit Gaussians as images of 8x8 (or data.image_size) pixels, one a class; its prior is exact.

    Means are (2, 0), (-2, 0), (0, 2), (0, -2) in the first two pixels, and 0 in the others; 250 images of each class in
    either split. There are 4 classes: the release draws four labels but declares two.
    """
    side = source.image_size or _SIDE
    if side < 2:
        raise ConfigError(f"dist_gmm needs two pixels for its means, got data.image_size = {side}: raise it")
    means = torch.zeros(4, side**2, dtype=torch.float64)
    means[:2, 0] = means[2:, 1] = torch.tensor([_AWAY, -_AWAY])

    def split(part: str) -> Split:
        labels = torch.arange(_EACH) % len(means)
        return Split(_images(means[labels] + _normal("dist_gmm", part, _EACH, side**2), side, 0.07), labels)

    return _dataset("dist_gmm", split("train"), split("test"), len(means), 0.07)


def _normal(world: str, part: str, rows: int, columns: int) -> Tensor:
    """In float64: its generator is not vectorised, so machines differ less than float32 tells."""
    return torch.randn(rows, columns, generator=derive(0, world, part), dtype=torch.float64)


def _images(vectors: Tensor, side: int, std: float) -> Tensor:
    """``(N, d)`` to ``(N, 1, side, side)`` float32 in [0, 1]."""
    return (_MEAN + std * vectors).clamp(0, 1).float().view(-1, 1, side, side)


def _dataset(name: str, train: Split, test: Split, classes: int, std: float) -> Dataset:
    return Dataset(
        name=name,
        train=train,
        test=test,
        class_names=tuple(map(str, range(classes))),
        mean=(_MEAN,),
        std=(std,),
        origin="drawn by fl_sim.data.synthetic",
    )
