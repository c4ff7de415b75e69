"""Which rounds are attacked: numbered, or told by the images that were used before."""

from collections.abc import Mapping

import pytest

from experiments import config
from experiments.build import Cell, cells
from experiments.check import check
from experiments.schedule import images_before
from fl_sim.core.errors import ConfigError
from fl_sim.federation.server import cohort_of

FEDERATION = {"clients": 3, "cohort": 2, "rounds": 6, "batch_size": 4, "learning_rate": 0.1}
SIZES = {"kind": "sizes", "sizes": [3, 5, 9]}


def cell(adversary: Mapping[str, object], **federation: object) -> Cell:
    tree = {"name": "few", "data": {"partition": SIZES}, "federation": {**FEDERATION, **federation}}
    return cells(config.load_dict({**tree, "model": "mlp", "adversary": adversary}, "test"))[0]


@pytest.mark.parametrize("federation", [{"mode": "fedsgd"}, {"mode": "fedavg", "local_epochs": 2}])
def test_images_are_counted_as_often_as_clients_use_them(federation: dict[str, object]) -> None:
    one = cell({}, **federation)
    data, protocol, expected = one.data(None), one.protocol(), [0]
    for number in range(1, 6):
        used = [len(data.batch(c, number, protocol.round_size).labels) for c in cohort_of(3, 2, 0, number)]
        expected.append(expected[-1] + sum(used) * (2 if protocol.mode == "fedavg" else 1))
    assert images_before(one.study, protocol, data) == expected


def test_attacked_are_the_first_rounds_after_so_many_images() -> None:
    assert cell({}).attacked_rounds(None) == [1, 2, 3, 4, 5, 6]
    assert cell({"rounds": [5, 2]}).attacked_rounds(None) == [2, 5]
    before = images_before(cell({}).study, cell({}).protocol(), cell({}).data(None))
    wanted = {"records": [0, before[1], before[1] + 1, before[5]]}
    assert cell(wanted).attacked_rounds(None) == [1, 2, 3, 6]
    assert cell(wanted).expected_observations(None) == 4 * 2


def test_more_images_than_are_ever_used_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"adversary\.records: expected numbers up to \d+, .* got 1000: raise"):
        check(cell({"records": [0, 1000]}).study)


def test_rounds_or_records() -> None:
    with pytest.raises(ConfigError, match="expected rounds or records, got both"):
        check(cell({"records": [0], "rounds": [1]}).study)
