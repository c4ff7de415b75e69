"""What a generator is trained and judged with: one convolutional trunk under three heads."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch.nn.utils.parametrizations import spectral_norm

from attacks.generators.staged import doublings

_SLOPE = 0.2  # of what is negative, as in DCGAN's discriminator
_FEATURES = 128


class Trunk(nn.Module):
    """Convolutions that halve the side as often as it stays whole and at least 4, then a linear layer.

    Args:
        image_shape: ``(C, H, W)``, square.
        width: Channels at full size; doubled with each halving, at most fourfold.

    Returns:
        ``(M, 128)``, after a leaky ReLU.
    """

    def __init__(self, image_shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        channels, side, _ = image_shape
        halvings = doublings(side)
        widths = [min(width << place, 4 * width) for place in range(halvings + 1)]
        self.convs = nn.ModuleList([nn.Conv2d(channels, width, 3, 1, 1)])
        self.convs.extend(nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise(widths))
        self.last = nn.Linear(widths[-1] * (side >> halvings) ** 2, _FEATURES)

    def forward(self, images: Tensor) -> Tensor:
        feature = images * 2 - 1
        for conv in self.convs:
            feature = leaky_relu(conv(feature), _SLOPE)
        return leaky_relu(self.last(feature.flatten(1)), _SLOPE)


class Discriminator(nn.Module):
    """How real an image of a class looks: projection (arXiv 1802.05637), spectral norms of 1 (arXiv 1802.05957).

    Args:
        image_shape: ``(C, H, W)``.
        classes: 0: no class is told.
        width: Of the trunk.
    """

    def __init__(self, image_shape: tuple[int, int, int], classes: int, width: int) -> None:
        super().__init__()
        self.trunk = Trunk(image_shape, width)
        self.real = nn.Linear(_FEATURES, 1)
        self.embed = nn.Linear(classes, _FEATURES, bias=False) if classes else None
        for layer in list(self.modules()):
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                spectral_norm(layer)

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """Scores ``(M,)`` of images, given their classes one-hot."""
        features = self.trunk(images)
        score: Tensor = self.real(features)[:, 0]
        return score if self.embed is None else score + (self.embed(condition) * features).sum(1)


class Encoder(nn.Module):
    """Mean and log std of the latent given an image, each ``(M, latents)``."""

    def __init__(self, image_shape: tuple[int, int, int], latents: int, width: int) -> None:
        super().__init__()
        self.trunk, self.head = Trunk(image_shape, width), nn.Linear(_FEATURES, 2 * latents)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.head(self.trunk(images)).chunk(2, 1)
        return mean, log_std


class Classifier(nn.Module):
    """Logits ``(M, classes)``; its trunk's features are what Fréchet distances are taken in."""

    def __init__(self, image_shape: tuple[int, int, int], classes: int, width: int) -> None:
        super().__init__()
        self.trunk, self.head = Trunk(image_shape, width), nn.Linear(_FEATURES, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.trunk(images))
        return logits


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Conditions ``(M, classes)`` float32."""
    return torch.nn.functional.one_hot(labels, classes).float()
