"""Which differential privacy a stack of defenses gives, if any."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from defenses.clipping import Clip
from defenses.dpsgd import DpSgd
from defenses.mixing import InstaHide, Mixup
from defenses.noise import Gaussian
from fl_sim.core.contracts import AnyDefense, Defense
from fl_sim.core.types import Protocol


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What one round gives to each client that takes part.

    Args:
        protects: One ``record`` of a client, against the same batches in which it has no gradient, their sizes being
            public; or all that a ``client`` holds, exchanged for anything else. Exchanging a record for another one
            counts as twice the step: half the multiplier.
        multiplier: Noise std over how far that can move the update before noise.
        steps: Noisy steps a round that one record, or the client, is in, or may be in.
        against: Whom: a ``server`` that sees the update, and so everybody; or only who sees the new ``model``, where
            the server is trusted to add the noise (central differential privacy).
        rate: Chance to be in a step, where it is drawn (Poisson sampling).

    Of the update alone: the mean loss that clients report for training curves, and their number of images, are sent as
    they are.
    """

    protects: Literal["record", "client"]
    multiplier: float
    steps: int
    against: Literal["server", "model"] = "server"
    rate: float = 1.0


def central(noise_multiplier: float) -> Guarantee | None:
    """Of a server that clips each of a full cohort's updates, and adds noise to their sum, as many clips loud.

    A client is exchanged, which moves the sum by two clips; where it is left out (as Flower's own accountant has it) by
    one.
    """
    return Guarantee("client", noise_multiplier / 2, 1, against="model") if noise_multiplier else None


def guarantee(
    defenses: Sequence[AnyDefense], protocol: Protocol, num_examples: int, most: int | None = None
) -> Guarantee | None:
    """Of a stack: DP-SGD protects records, ``clip`` (global) followed at once by ``gaussian`` (central) clients.

    Whatever comes after is post-processing. A record is in one batch of each local epoch, and nothing is gained from
    sampling; or batches are Poisson samples, and it may be in every step. Nothing is guaranteed where batch statistics
    are sent beside the update, nor to records that are mixed with others: each is in several gradients then.

    Args:
        num_examples: Images that a client holds, public; of several clients the fewest, who are sampled most often.
        most: Of several clients the most, who take the most steps; ``None``: as many.
    """
    if protocol.batchnorm == "train":
        return None
    steps = protocol.local_epochs if protocol.mode == "fedavg" else 1
    if protocol.sampling == "poisson":
        steps = protocol.steps(most or num_examples)
    mixed = any(isinstance(defense, (Mixup, InstaHide)) for defense in defenses)
    for defense in defenses:
        if isinstance(defense, DpSgd) and defense.noise_multiplier and not mixed:
            rate = protocol.rate(num_examples)
            return Guarantee("record", defense.noise_multiplier, steps, rate=rate)
    on_update = [d for d in defenses if isinstance(d, Defense)]
    ratios = [
        noise.std / (2 * bound.norm)
        for bound, noise in pairwise(on_update)
        if isinstance(bound, Clip) and bound.scope == "global" and isinstance(noise, Gaussian)
        if noise.averaging == "central" and noise.std
    ]
    return Guarantee("client", max(ratios), 1) if ratios else None
