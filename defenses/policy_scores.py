"""What ATS's search measures of a policy, before any attack is run; arXiv 2011.12505.

The formulas are those of the released code (gaow0007/ATSPrivacy, search_transform_attack.py at 6b58094).
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn.functional import cosine_similarity

from defenses.ats import ENTRIES
from fl_sim.core.types import Tensors

_FLOOR = 1e-5  # under eigenvalues


def random_policies(count: int, longest: int, rng: Generator) -> list[str]:
    """``count`` different chains of up to ``longest`` entries; lengths and entries are uniform draws."""
    found = dict[str, None]()
    while len(found) < count:
        length = 1 + int(torch.randint(longest, (), generator=rng))
        found["-".join(map(str, torch.randint(len(ENTRIES), (length,), generator=rng).tolist()))] = None
    return list(found)


def privacy_score(gradients: Callable[[Tensor], Tensors], image: Tensor, noise: Tensor, bins: int = 20) -> float:
    """How soon the gradient shows the way from noise to a transformed image; lower is more private.

    The area under the cosine between the image's gradient and those on the line from ``noise`` to it, the mean over
    tensors, by the trapezoidal rule; the line has length 1.

    Args:
        gradients: Of each image of a batch alone, ``(N, C, H, W)`` to trees ``(N, *shape)``.
        image, noise: ``(C, H, W)``; the image as the policy leaves it.
    """
    shares = torch.linspace(0, 1, bins + 1).view(-1, 1, 1, 1)
    path = gradients(shares * image + (1 - shares) * noise)
    cosines = torch.stack([cosine_similarity(g.flatten(1), g[-1:].flatten(1)) for g in path.values()]).mean(0)
    return torch.trapezoid(cosines, dx=1 / bins).item()


def accuracy_score(jacobian: Tensor) -> float:
    """How different a fresh network's answers are on ``n`` transformed images; higher promises a better model.

    With the eigenvalues ``v`` of the correlations between the rows, minus the mean of ``log v + 1 / v``, at most -1;
    minus infinity where a row is constant. The released code takes the sum.

    Args:
        jacobian: Of the sum of each image's logits in its pixels, ``(n, d)``.
    """
    correlations = torch.corrcoef(jacobian.double())
    if not correlations.isfinite().all():
        return -torch.inf
    spectrum = torch.linalg.eigvalsh(correlations).clamp_min(0) + _FLOOR
    return float(-(spectrum.log() + 1 / spectrum).mean())
