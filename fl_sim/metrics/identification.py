"""Could the server point to the client's image in a line-up?"""

import torch
from torch import Tensor

from fl_sim.core.errors import FlSimError
from fl_sim.metrics.image import check_pair
from fl_sim.metrics.matching import squared_distances


def identification_rank(guess: Tensor, truth: Tensor, candidates: Tensor) -> Tensor:
    """Place of the true image among ``candidates`` by MSE to its reconstruction; ``(N,)`` int64, 1 = identified.

    One plus the number of candidates strictly closer. ``guess`` and ``truth`` are ``(N, C, H, W)``, ``candidates``
    ``(M, C, H, W)``: the line-up, of the client's other images and of distractors. The true image may be among them
    and never counts against itself. A guess that knows nothing comes first once in (1 + the other images) times.
    """
    check_pair(guess, truth)
    if candidates.ndim != 4 or candidates.shape[1:] != truth.shape[1:] or not len(candidates):
        raise FlSimError(
            f"expected candidates (M, {', '.join(map(str, truth.shape[1:]))}), M >= 1, got {tuple(candidates.shape)}: "
            "a rank among no images says nothing"
        )
    line_up = torch.cat([truth, candidates])
    distances = squared_distances(guess, line_up)
    own = distances.diagonal()[:, None]
    return 1 + (distances[:, len(truth) :] < own).sum(1)
