"""Projection onto the l1 ball."""

import torch
from torch import Tensor


def onto_l1_ball(vectors: Tensor, radius: float) -> Tensor:
    """The nearest point (Euclidean) of the ball to each row of ``vectors`` ``(M, n)``; exact, by sorting.

    Duchi et al., ICML 2008: entries shrink towards zero by one threshold a row, and small ones become zero.
    """
    sizes = vectors.abs()
    sorted_ = sizes.sort(dim=1, descending=True).values
    excess = sorted_.cumsum(1) - radius
    count = torch.arange(1, sizes.shape[1] + 1, device=sizes.device)
    last = (sorted_ * count > excess).sum(1, keepdim=True).clamp_min(1)
    threshold = (excess.gather(1, last - 1) / last).clamp_min(0)
    return vectors.sign() * (sizes - threshold).clamp_min(0)
