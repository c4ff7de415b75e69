from pathlib import Path

import pytest
import torch
from torch import Tensor

from fl_sim.core.errors import ConfigError
from fl_sim.core.seeds import derive
from fl_sim.data import ClientData, Dataset, Source, Split, load
from fl_sim.data.transforms import to_unit

WORLDS = pytest.mark.parametrize("name", ["dist_gaussian", "dist_gmm"])


def vectors(data: Dataset, split: Split) -> Tensor:
    return ((split.images.double() - data.mean[0]) / data.std[0]).flatten(1)


@WORLDS
@pytest.mark.parametrize("side", [None, 7, 12])
def test_images_are_exact_and_of_the_side_that_is_asked_for(name: str, side: int | None) -> None:
    data = load(Source(name=name, image_size=side))
    for split in (data.train, data.test):
        assert split.images.shape == (1000, 1, side or 8, side or 8)
        assert split.images.dtype == torch.float32
        assert split.labels.dtype == torch.int64
        assert 0 <= split.images.min() < split.images.max() <= 1
        assert int(((split.images == 0) | (split.images == 1)).sum()) <= 1  # what had to be clamped
        assert sorted(set(split.labels.tolist())) == list(range(data.classes))
    assert not torch.equal(data.train.images, data.test.images)


def test_dist_gaussian_is_the_vectors_and_their_largest_projection() -> None:
    data = load(Source(name="dist_gaussian"))
    drawn = torch.randn(1000, 64, generator=derive(0, "dist_gaussian", "train"), dtype=torch.float64)
    weights = torch.randn(64, 10, generator=derive(0, "dist_gaussian", "projection"), dtype=torch.float64)
    assert (vectors(data, data.train) - drawn).abs().max() < 1e-6
    assert torch.equal(data.train.labels, (drawn @ weights).argmax(1))
    assert data.classes == 10


def test_dist_gmm_has_a_class_a_component() -> None:
    data = load(Source(name="dist_gmm"))
    assert data.classes == 4
    expected = [[2, 0], [-2, 0], [0, 2], [0, -2]]
    for label, mean in enumerate(expected):
        mine = vectors(data, data.train)[data.train.labels == label]
        assert len(mine) == 250
        assert mine[:, :2].mean(0).tolist() == pytest.approx(mean, abs=0.25)
        assert (mine - torch.tensor([*mean, *[0] * 62])).std().item() == pytest.approx(1, abs=0.03)


@WORLDS
def test_the_same_numbers_everywhere(name: str) -> None:
    """To float32's last bits, which libraries of mathematics may differ in."""
    expected = {
        "dist_gaussian": [0.5836331, 0.6401177, 0.4818365, 0.7228466],
        "dist_gmm": [0.6644674, 0.6239783, 0.4864323, 0.4360646],
    }
    assert load(Source(name=name)).train.images[0, 0, 0, :4].tolist() == pytest.approx(expected[name], abs=1e-6)


@WORLDS
def test_clients_get_the_pixels_unchanged_and_nothing_is_kept_on_disk(name: str, cache: Path) -> None:
    data = ClientData(name=name, clients=3, per_client=20)
    batch, used = data.batch(1, 2, 5), data.used(1, 2, 5)
    assert torch.equal(batch.images, data.dataset().train.images[used])
    assert data.public(30).images.shape == (30, 1, 8, 8)
    assert data.task().std == data.dataset().std
    assert not list(cache.glob("datasets/*"))


def test_floats_are_in_the_unit_range_already() -> None:
    pixels = torch.rand(2, 1, 3, 3, generator=derive(0))
    assert to_unit(pixels) is pixels


def test_a_mixture_in_one_pixel_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.image_size = 1: raise it"):
        load(Source(name="dist_gmm", image_size=1))
