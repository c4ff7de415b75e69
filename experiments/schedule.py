"""Which rounds are attacked: as the study numbers them, or by how much the model has learned from by then."""

from bisect import bisect_left
from itertools import accumulate

from experiments.config import Study
from fl_sim.core.errors import ConfigError
from fl_sim.core.types import Protocol
from fl_sim.data.clients import ClientData
from fl_sim.federation.server import cohort_of


def attacked_rounds(study: Study, protocol: Protocol, data: ClientData) -> list[int]:
    """The rounds of which observations are attacked, ascending.

    Raises:
        ConfigError: ``adversary.records`` asks for more images than are used before the last round.
    """
    wanted = study.adversary.records
    if wanted is None:
        return sorted(study.adversary.rounds or range(1, study.federation.rounds + 1))
    before = images_before(study, protocol, data)
    if max(wanted) > before[-1]:
        raise ConfigError(
            f"adversary.records: expected numbers up to {before[-1]}, the images used before the last round, got "
            f"{max(wanted)}: raise federation.rounds"
        )
    return sorted({1 + bisect_left(before, one) for one in wanted})


def images_before(study: Study, protocol: Protocol, data: ClientData) -> list[int]:
    """For each round, how many images its weights were trained on, counted as often as they were used."""
    federation = study.federation
    cohort = federation.cohort or federation.clients
    used = [protocol.images(len(data.holdings(client))) for client in range(federation.clients)]
    rounds = range(1, federation.rounds)
    each = (sum(used[c] for c in cohort_of(federation.clients, cohort, study.seed, number)) for number in rounds)
    return list(accumulate(each, initial=0))
