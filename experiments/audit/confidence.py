"""How far a reconstruction may be believed where nobody knows the truth. None of these figures is a distance to it.

``agreement``: 1 minus the root mean square difference between an image and its counterpart of a second run with other
draws, over that to an image reconstructed from another client's update. Near 1: the update, not chance, decides the
image. At 0 two runs are no more alike than images of two clients are.

``fit``: 1 minus the misfit over that of the images reconstructed from the other client's update; the misfit is 1 minus
the cosine between the images' own gradient and the update. Near 1: these images explain the update, others do not.

``labels``: share of labels that two runs agree on. An attack that draws nothing agrees with itself; only its fit tells.
A reconstruction may agree and fit and still be wrong, where many images have one gradient (strong pruning, small nets).
"""

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from attacks.problem import gradient_scale
from fl_sim.core.trees import flat
from fl_sim.core.types import Batch, Observation, Reconstruction
from fl_sim.metrics.matching import match
from fl_sim.training.local import State, gradient

JSON = dict[str, Any]
_TINY = 1e-12


def confidence(
    seen: Observation,
    model: nn.Module,
    guess: Reconstruction,
    second: Reconstruction | None,
    unrelated: Tensor | None,
) -> JSON:
    """The figures of one reconstruction; ``None`` where one cannot be had.

    Args:
        second: Of the same attack on the same update, with other draws.
        unrelated: Images ``(N, C, H, W)`` of the same attack on another client's update.
    """
    misfit = _misfit(seen, model, guess.images, guess.labels)
    blind = None if unrelated is None else _misfit(seen, model, unrelated, guess.labels)
    return {
        "agreement": None
        if second is None or unrelated is None
        else _agreement(guess.images, second.images, unrelated),
        "difference": None if second is None else _difference(guess.images, second.images).tolist(),
        "fit": None if blind is None else 1 - misfit / max(blind, _TINY),
        "misfit": misfit,
        "labels": None if second is None else _shared(guess.labels, second.labels),
    }


def _agreement(images: Tensor, second: Tensor, unrelated: Tensor) -> list[float]:
    """One number an image, at most 1; not below 0."""
    ratio = _difference(images, second) / _difference(images, unrelated).clamp_min(_TINY)
    found: list[float] = (1 - ratio).clamp_min(0).tolist()
    return found


def _difference(images: Tensor, others: Tensor) -> Tensor:
    """Root mean square, in units of the pixel range, ``(N,)``; matched within the batch."""
    return (images - others[match(others, images)]).flatten(1).square().mean(1).sqrt()


def _misfit(seen: Observation, model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """1 minus the cosine between the update and the gradient of these images, in the protocol's mode; in [0, 2]."""
    model.train(seen.protocol is not None and seen.protocol.batchnorm == "train")
    mine = flat(gradient(model, State(seen.broadcast, seen.buffers), Batch(images, labels)).tree).double()
    factor = gradient_scale(seen) or -1.0
    theirs = flat(seen.update.delta).double() * (1 if factor > 0 else -1)
    return 1 - float(torch.nn.functional.cosine_similarity(mine, theirs, dim=0))


def _shared(labels: Tensor, others: Tensor) -> float:
    common = Counter(labels.tolist()) & Counter(others.tolist())
    return common.total() / len(labels)
