"""Which reconstruction is meant for which original: an update does not say in what order its batch was."""

import torch
from torch import Tensor

from fl_sim.metrics.image import check_pair


def match(guess: Tensor, truth: Tensor) -> Tensor:
    """The permutation ``(N,)`` int64 of least total MSE; ``guess[permutation]`` faces ``truth``.

    Both are ``(N, C, H, W)`` in [0, 1]. Optimal (Hungarian) assignment: every original gets one reconstruction, so
    one good image is not counted for several originals.
    """
    from scipy.optimize import linear_sum_assignment

    check_pair(guess, truth)
    _, chosen = linear_sum_assignment(squared_distances(truth, guess).cpu().numpy())
    return torch.from_numpy(chosen).to(guess.device)


def squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """MSE of every pair, ``(N, C, H, W)`` by ``(M, C, H, W)`` to ``(N, M)`` float64; equal images, equal columns.

    One row at a time: ``N * M`` images at once would not fit for the candidate lists of identification.
    """
    rows = [(right.double() - image.double()).square().flatten(1).mean(1) for image in left]
    return torch.stack(rows)
