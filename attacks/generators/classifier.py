"""Which of a generator's classes an image is of: a network trained beside it, on the same images."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from attacks.generators.staged import doublings

FEATURES = 128
_SLOPE = 0.2  # of what is negative, as in DCGAN's discriminator


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
        self.last = nn.Linear(widths[-1] * (side >> halvings) ** 2, FEATURES)

    def forward(self, images: Tensor) -> Tensor:
        feature = images * 2 - 1
        for conv in self.convs:
            feature = leaky_relu(conv(feature), _SLOPE)
        return leaky_relu(self.last(feature.flatten(1)), _SLOPE)


class Classifier(nn.Module):
    """Logits ``(M, classes)`` of images; its trunk's features are what Fréchet distances are taken in.

    Args:
        image_shape: ``(C, H, W)``, square.
        classes: Of the generator.
        width: Of the trunk.
    """

    def __init__(self, image_shape: tuple[int, int, int], classes: int, width: int) -> None:
        super().__init__()
        self.trunk, self.head = Trunk(image_shape, width), nn.Linear(FEATURES, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.trunk(images))
        return logits
