"""What a generator is trained with: heads on the trunk of its classifier."""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from attacks.generators.classifier import FEATURES, Trunk


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
        self.real = nn.Linear(FEATURES, 1)
        self.embed = nn.Linear(classes, FEATURES, bias=False) if classes else None
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
        self.trunk, self.head = Trunk(image_shape, width), nn.Linear(FEATURES, 2 * latents)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.head(self.trunk(images)).chunk(2, 1)
        return mean, log_std


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Conditions ``(M, classes)`` float32."""
    return torch.nn.functional.one_hot(labels, classes).float()
