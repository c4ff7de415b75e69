"""A first layer's gradient as a sum of images, and whether images explain the units that they left at rest."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.analytic.first_layer import FirstLayer

_NUMERIC = 2e-7  # of the largest singular value: what float32 gradients cannot tell from zero
_DEPENDENT = 1e-4  # the least singular value of unit vectors, below


@dataclass(frozen=True, eq=False)
class Mixture:
    """``gradient = left @ right`` up to noise; image i has its own ``left @ q_i``, its gradient at the layer's units.

    Args:
        left: ``(m, r)``, orthonormal.
        right: ``(r, d + 1)``.
        responses: ``(m, r)``, of the layer's units to the rows of ``right``.
        noise: ``(r,)``, estimated standard deviation of the noise on the entries of each column of ``left``.
        misfit: What is not in the product, relative to the gradient, in [0, 1].
    """

    left: Tensor
    right: Tensor
    responses: Tensor
    noise: Tensor
    misfit: float

    @classmethod
    def of(cls, layer: FirstLayer, images: int) -> "Mixture":
        """Of at most ``images`` images; of fewer where the others left no trace."""
        left, spectrum, right = torch.linalg.svd(layer.gradient, full_matrices=False)
        rank = min(images, int((spectrum > _NUMERIC * spectrum[0]).sum()))
        units, width = layer.gradient.shape
        rest = spectrum[rank:].norm()
        level = rest / max(1, (units - rank) * (width - rank)) ** 0.5
        right = spectrum[:rank, None] * right[:rank]
        return cls(
            left=left[:, :rank],
            right=right,
            responses=layer.parameters @ right.T,
            noise=level / spectrum[:rank],
            misfit=float(rest / spectrum.norm()),
        )

    def images(self, directions: Tensor) -> tuple[Tensor, Tensor]:
        """From one ``q`` ``(r,)`` an image, its pixels ``(r, d)`` and its gradient at the units ``(r, m)``.

        Their scale is that which makes the input of the biases 1.
        """
        mixed = torch.linalg.pinv(directions.T) @ self.right
        heights = mixed[:, -1:]
        return mixed[:, :-1] / heights, heights * (directions @ self.left.T)

    def mismatch(self, directions: Tensor) -> Tensor:
        """How far each image's gradient is from zero on units that the same image does not switch on.

        ``(..., r, r)``, one ``q`` a row, to ``(...)`` in [0, 1]: relative to the image's gradient, root mean square
        over the images. 0 where all directions are right; one that is wrong makes all images wrong; 1 where they are
        not independent.
        """
        unmixing = torch.linalg.pinv(directions.mT)
        dependent = torch.linalg.svdvals(directions)[..., -1] < _DEPENDENT
        heights = unmixing @ self.right[:, -1]
        off = self.responses @ (unmixing / heights[..., None]).mT <= 0
        size = (self.left @ directions.mT).square()
        shares = (size * off).sum(-2) / size.sum(-2)
        mismatch: Tensor = shares.mean(-1).sqrt().nan_to_num(1.0).where(~dependent, 1.0)
        return mismatch
