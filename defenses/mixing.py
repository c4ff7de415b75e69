"""Defenses that mix a client's images with each other before any gradient is taken."""

from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from fl_sim.core.contracts import DataDefense
from fl_sim.core.errors import ConfigError
from fl_sim.core.part import Unit, part
from fl_sim.core.types import Batch


@part
class Mixup(DataDefense):
    """Each image is a blend of two of the client's, its label of their two labels; arXiv 1710.09412.

    Args:
        alpha: Weights are drawn from Beta(alpha, alpha): 1 is uniform, towards 0 one image prevails; 0 is no defense.

    ``x = w x_i + (1 - w) x_j``, where j comes after i in a random circle. Mixed once a round over all its images (the
    paper: each minibatch anew), with a weight for each pair (its code: one for the batch). An image alone is not mixed.
    """

    surrogate: ClassVar[str] = "dlg, which searches labels too: it finds the blends"
    mixes: ClassVar[int] = 2

    alpha: Annotated[NonNegativeFloat, Unit("of Beta(alpha, alpha)")] = 1.0

    def transform(self, batch: Batch, rng: Generator) -> Batch:
        if not self.alpha:
            return batch
        weight = torch.from_numpy(_numpy(rng).beta(self.alpha, self.alpha, len(batch.labels))).float()
        return mixed(batch, torch.stack([weight, 1 - weight]), rng)


@part
class InstaHide(DataDefense):
    """Each image is a blend of k of the client's, then half of its pixels are inverted; arXiv 2010.02772.

    Args:
        mixes: Images in a blend, k.
        most: Largest weight of an image in it; weights are uniform on the simplex, but for that.

    Of the paper's two variants the one within the data set: a client has no public images to mix in. Pixels are
    inverted, ``1 - x``, each by chance: a change of sign where images are scaled to [-1, 1]. The paper changes the sign
    of images less the data set's mean, which is nearly the same for CIFAR and another encoding for MNIST, whose mean is
    far from 0.5. Mixed once a round, not each epoch. With fewer images than k, some come twice in a blend.
    """

    surrogate: ClassVar[str] = "dlg: it finds the encodings, of which many can be decoded (arXiv 2011.05315)"

    mixes: Annotated[int, Field(ge=2), Unit("images")] = 4
    most: Annotated[float, Field(gt=0, le=1), Unit("weight")] = 0.65

    def __post_init__(self) -> None:
        if self.most * self.mixes <= 1:
            raise ConfigError(f"instahide: expected most > 1 / mixes = {1 / self.mixes:.3g}, got {self.most}: raise it")

    def transform(self, batch: Batch, rng: Generator) -> Batch:
        weights = torch.stack([self._weights(rng) for _ in batch.labels], 1)
        images, labels = mixed(batch, weights, rng)
        inverted = torch.randint(2, images.shape, generator=rng).bool()
        return Batch(torch.where(inverted, 1 - images, images), labels)

    def _weights(self, rng: Generator) -> Tensor:
        """``(mixes,)``, by rejection."""
        while True:
            drawn = torch.empty(self.mixes).exponential_(generator=rng)
            if (drawn / drawn.sum()).max() <= self.most:
                return drawn / drawn.sum()


def mixed(batch: Batch, weights: Tensor, rng: Generator) -> Batch:
    """Blend each image and label with those that follow it in a random circle.

    Args:
        weights: ``(k, N)``, of an image itself and of the next ones; columns sum to 1.

    Returns:
        Images in [0, 1], and labels as weights of classes.
    """
    count, soft = len(batch.labels), class_weights(batch.labels)
    circle = torch.randperm(count, generator=rng)
    place = circle.argsort()
    images, labels = torch.zeros_like(batch.images), torch.zeros_like(soft)
    for step, weight in enumerate(weights):
        partner = circle[(place + step) % count]
        images = images + weight.view(-1, 1, 1, 1) * batch.images[partner]
        labels = labels + weight.view(-1, 1) * soft[partner]
    return Batch(images.clamp(0, 1), labels)


def class_weights(labels: Tensor) -> Tensor:
    """``(N, K)`` of labels ``(N,)``, K one more than the largest; weights stay as they are."""
    return labels if labels.dim() == 2 else one_hot(labels).float()


def _numpy(rng: Generator) -> np.random.Generator:
    return np.random.default_rng(int(torch.randint(2**62, (), generator=rng)))
