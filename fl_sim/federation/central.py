"""Central differential privacy: the server clips each update and adds noise to their mean (arXiv 1710.06963).

It protects clients against those who see the weights that come of it, never against this server, which sees every
update as it was sent.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg

from fl_sim.core.seeds import derive_int

CENTRAL: Final = DifferentialPrivacyServerSideFixedClipping.__name__


class CentralDp(DifferentialPrivacyServerSideFixedClipping):
    """Flower's wrapper around FedAvg, with two rules more.

    A round in which a reply is missing leaves the weights as they are: the noise is made for the mean of a full cohort.
    And the noise is a function of seed and round; Flower draws it from numpy's global generator, which is put back.

    Args:
        noise_multiplier: Noise std on the sum of updates, over ``clipping_norm``.
        clipping_norm: Largest L2 norm of a client's change of the weights (in FedSGD, of its gradient times the
            learning rate).
        cohort: Clients in a round, all of equal weight.
        fedavg: FedAvg's own arguments.
    """

    def __init__(
        self, *, noise_multiplier: float, clipping_norm: float, cohort: int, seed: int, fedavg: Mapping[str, Any]
    ) -> None:
        super().__init__(FedAvg(**fedavg), noise_multiplier, clipping_norm, cohort)
        self._seed = seed

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        complete = list(replies)
        if len(complete) < self.num_sampled_clients:
            return None, None
        with _drawing_from(derive_int(self._seed, "central noise", server_round)):
            return super().aggregate_train(server_round, complete)


@contextmanager
def _drawing_from(seed: int) -> Iterator[None]:
    """numpy's global generator begins at ``seed`` inside, and goes on where it was outside."""
    before = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(before)
