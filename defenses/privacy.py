"""Which differential privacy a stack of defenses gives, if any."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from defenses.clipping import Clip
from defenses.dpsgd import DpSgd
from defenses.noise import Gaussian
from fl_sim.core.contracts import AnyDefense, Defense
from fl_sim.core.types import Protocol


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What one round gives to each client that takes part, against a server that sees its update.

    Args:
        protects: One ``record`` of a client, against the same batches in which it has no gradient, their sizes being
            public; or all that a ``client`` holds, exchanged for anything else. Exchanging a record for another one
            counts as twice the step: half the multiplier.
        multiplier: Noise std over how far that can move the update before noise.
        steps: Noisy steps a round that one record, or the client, is in.

    Of the update alone: the mean loss that clients report for training curves, and their number of images, are sent as
    they are.
    """

    protects: Literal["record", "client"]
    multiplier: float
    steps: int


def guarantee(defenses: Sequence[AnyDefense], protocol: Protocol) -> Guarantee | None:
    """Of a stack: DP-SGD protects records, ``clip`` (global) followed at once by ``gaussian`` (central) clients.

    Whatever comes after is post-processing. Batches are no Poisson samples, so nothing is gained from sampling; a
    record is in one batch of each local epoch. Nothing is guaranteed where batch statistics are sent beside the update.
    """
    if protocol.batchnorm == "train":
        return None
    epochs = protocol.local_epochs if protocol.mode == "fedavg" else 1
    for defense in defenses:
        if isinstance(defense, DpSgd) and defense.noise_multiplier:
            return Guarantee("record", defense.noise_multiplier, epochs)
    on_update = [d for d in defenses if isinstance(d, Defense)]
    ratios = [
        noise.std / (2 * bound.norm)
        for bound, noise in pairwise(on_update)
        if isinstance(bound, Clip) and bound.scope == "global" and isinstance(noise, Gaussian)
        if noise.averaging == "central" and noise.std
    ]
    return Guarantee("client", max(ratios), 1) if ratios else None
