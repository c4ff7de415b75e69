import pickle

import numpy as np
import pytest
import torch

from fl_sim.core.errors import ConfigError
from fl_sim.data import ClientData, Partition

DATA = ClientData(clients=5, partition=Partition(kind="dirichlet", alpha=0.5), seed=3)


def test_task() -> None:
    task = DATA.task()
    assert (task.image_shape, task.classes, len(task.mean)) == ((1, 8, 8), 10, 1)


def test_clients_share_nothing() -> None:
    everything = torch.cat([DATA.holdings(client) for client in range(5)])
    assert sorted(everything.tolist()) == list(range(1437))


def test_a_batch_is_what_was_used() -> None:
    batch, used, train = DATA.batch(2, 7, 6), DATA.used(2, 7, 6), DATA.dataset().train
    assert batch.images.dtype == torch.float32
    assert torch.equal(batch.images, train.images[used] / 255)
    assert torch.equal(batch.labels, train.labels[used])
    assert batch.images.shape == (6, 1, 8, 8)


def test_batches_depend_on_their_place_only() -> None:
    again = pickle.loads(pickle.dumps(DATA))  # noqa: S301  our own bytes: as Ray sends it
    assert again == DATA
    assert hash(again) == hash(DATA)
    late, early = again.used(1, 40, 4), again.used(1, 2, 4)
    assert torch.equal(DATA.used(1, 2, 4), early)
    assert torch.equal(DATA.used(1, 40, 4), late)


def test_rounds_walk_through_an_epoch_and_then_another() -> None:
    data = ClientData(per_client=10)
    epoch = torch.cat([data.used(1, round_, 3) for round_ in (1, 2, 3)])
    second = torch.cat([data.used(1, round_, 3) for round_ in (4, 5, 6)])
    for walk in (epoch, second):
        assert len(set(walk.tolist())) == 9
        assert set(walk.tolist()) < set(data.holdings(1).tolist())
    assert epoch.tolist() != second.tolist()


def test_an_epoch_covers_all_a_client_holds() -> None:
    data = ClientData(per_client=10)
    epoch = torch.cat([data.used(0, round_, 5) for round_ in (1, 2)])
    assert sorted(epoch.tolist()) == sorted(data.holdings(0).tolist())


def test_no_size_means_all() -> None:
    assert torch.equal(DATA.batch(0, 1, None).images, DATA.held(0).images)
    assert len(DATA.held(0).labels) == len(DATA.holdings(0))


def test_global_generators_are_left_alone() -> None:
    before = torch.get_rng_state(), str(np.random.get_state())
    ClientData(seed=77, partition=Partition(kind="pathological")).batch(0, 1, 2)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert str(np.random.get_state()) == before[1]


def test_clients_are_capped() -> None:
    data = ClientData(per_client=3)
    assert [len(data.holdings(client)) for client in range(4)] == [3, 3, 3, 3]
    assert torch.equal(data.holdings(2), ClientData().holdings(2)[:3])


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size must be at least 1, got 0"):
        ClientData(per_client=3).batch(0, 1, 0)


def test_a_client_with_few_images_uses_all_in_every_round() -> None:
    data = ClientData(partition=Partition(kind="sizes", sizes=(3, 40)), clients=2)
    assert [len(data.used(0, round_, 8)) for round_ in (1, 2, 3)] == [3, 3, 3]
    assert torch.equal(data.used(0, 1, 8).sort().values, data.used(0, 2, 8).sort().values)
    assert len(data.used(1, 1, 8)) == 8


@pytest.mark.parametrize("client", [-1, 4])
def test_a_client_that_is_not_there_is_refused(client: int) -> None:
    with pytest.raises(ConfigError, match=r"client must be in 0\.\.3"):
        ClientData().holdings(client)


def test_test_images_are_a_fixed_choice() -> None:
    few, more = DATA.test(20), DATA.test(50)
    assert torch.equal(few.images, more.images[:20])
    assert len(set(few.labels.tolist())) > 4
    assert len(DATA.test().labels) == 360


def test_public_images_are_nobodys() -> None:
    data = ClientData(per_client=100)
    train = data.dataset().train.images
    held = {bytes(image.numpy()) for client in range(4) for image in train[data.holdings(client)]}
    public = data.public(1000)
    assert len(public.labels) == 1000
    assert held.isdisjoint(bytes((image * 255).round().to(torch.uint8).numpy()) for image in public.images)
    assert torch.equal(data.public(10).images, public.images[:10])
    assert len(data.public().labels) == 1797 - 400


def test_public_images_are_other_test_images_where_clients_hold_the_rest() -> None:
    public, test = DATA.public(100), DATA.test(100)
    assert len(public.labels) == 100
    assert not {bytes(i.numpy()) for i in public.images} & {bytes(i.numpy()) for i in test.images}


def test_clients_may_hold_the_test_images_instead() -> None:
    data, other = ClientData(split="test"), ClientData()
    held = torch.cat([data.held(client).images for client in range(4)])
    known = other.dataset().test.images / 255
    assert sorted(held.flatten(1).tolist()) == sorted(known.flatten(1).tolist())
    assert torch.equal(data.dataset().test.images, other.dataset().train.images)
    assert len(data.test().labels) == len(data.public().labels) == 1437
    assert data.task() == other.task()
    assert data.dataset() is data.dataset()
