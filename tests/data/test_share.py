"""A client's own file against the whole data set."""

from pathlib import Path

import pytest
import torch

from fl_sim.core.errors import ConfigError, MissingDataError
from fl_sim.data.clients import ClientData
from fl_sim.data.partition import Partition
from fl_sim.data.share import read_share, share_of, write_share

DATA = ClientData(name="digits", clients=3, partition=Partition(kind="dirichlet", alpha=0.5), per_client=40, seed=4)


@pytest.mark.parametrize("size", [4, None])
@pytest.mark.parametrize("client", [0, 2])
def test_batches_are_those_of_the_whole_data_set(tmp_path: Path, client: int, size: int | None) -> None:
    write_share(tmp_path / "own.npz", share_of(DATA, client))
    own = read_share(tmp_path / "own.npz")
    for round_ in (1, 2, 30):
        mine, theirs = own.batch(client, round_, size), DATA.batch(client, round_, size)
        assert torch.equal(mine.images, theirs.images)
        assert torch.equal(mine.labels, theirs.labels)
    assert own.task == DATA.task()


def test_it_holds_what_the_client_holds_and_no_more() -> None:
    own = share_of(DATA, 1)
    assert len(own.held.images) == len(own.held.labels) == len(DATA.holdings(1)) <= 40


def test_another_clients_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected the images of client 0, got client 1's"):
        share_of(DATA, 1).batch(0, 1, 2)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="fl-sim deploy share"):
        read_share(tmp_path / "own.npz")
