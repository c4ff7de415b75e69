"""How many labels were found."""

from collections import Counter

from torch import Tensor

from fl_sim.core.errors import FlSimError


def label_accuracy(guess: Tensor, truth: Tensor) -> float:
    """Share of the batch's labels that were found, in [0, 1]; order does not count, repetitions do.

    Both are ``(N,)`` integers: ``[3, 3, 1]`` against ``[3, 1, 1]`` is 2/3.
    """
    if guess.ndim != 1 or guess.shape != truth.shape or not len(truth):
        raise FlSimError(
            f"expected two label vectors (N,), N >= 1, got {tuple(guess.shape)} and {tuple(truth.shape)}: "
            "hand over one label per image"
        )
    found = Counter(guess.tolist()) & Counter(truth.tolist())
    return found.total() / len(truth)
