import math
from dataclasses import replace
from typing import Literal, TypeAlias, get_args

import pytest
import torch
from torch import nn

from attacks.analytic import ratio
from attacks.analytic.first_layer import first_linear
from attacks.analytic.ratio import distinct_rows, nearest_rank_one
from defenses.sparsification import RandomPrune, TopK
from fl_sim import models
from fl_sim.core.contracts import Defense
from fl_sim.core.errors import UnmetKnowledgeError
from fl_sim.core.knowledge import Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.trees import add_normal, map_tree
from fl_sim.core.types import Batch, Observation, Outcome, Protocol
from fl_sim.metrics.image import psnr
from fl_sim.metrics.matching import match
from fl_sim.training.local import local_update, state_of
from tests.conftest import TASK, observe, precoded

Rows: TypeAlias = Literal["kept", "all", "best"]
ROWS = pytest.mark.parametrize("rows", get_args(Rows))


@ROWS
def test_the_image_is_read_off_exactly(seen: Observation, model: nn.Module, batch: Batch, rows: Rows) -> None:
    """K8."""
    found = ratio(rows=rows)(seen, model, derive(0))
    assert psnr(found.images, batch.images).item() > 100
    assert torch.equal(found.labels, batch.labels)
    assert found.outcome is Outcome.CONVERGED
    assert found.loss < 1e-5


@ROWS
def test_noise_costs_what_theory_says(model: nn.Module, rows: Rows) -> None:
    """K8: MSE ``s^2 (1 + x^2) / delta^2`` per normalised pixel, of one row or of all of them."""
    image = 0.3 + 0.4 * torch.rand(1, *TASK.image_shape, generator=derive(0, "dull"))  # far from clamping
    seen = replace(observe(model, Batch(image, torch.tensor([2]))), knowledge=Knowledge(labels=torch.tensor([2])))
    heights = seen.update.delta["net.fc1.bias"]
    height = heights.abs().max() if rows == "best" else heights.norm()
    std = 0.03 * heights.abs().max().item()
    normalised = (image - TASK.mean[0]) / TASK.std[0]
    expected = (TASK.std[0] * std / height) ** 2 * (1 + normalised.square()).mean()
    noisy = [replace(seen.update, delta=add_normal(seen.update.delta, std, derive(i, "noise"))) for i in range(200)]
    found = torch.cat([ratio(rows=rows)(replace(seen, update=u), model, derive(0)).images for u in noisy])
    assert (found - image).square().mean().item() == pytest.approx(expected.item(), rel=0.08)


@pytest.mark.parametrize("defense", [RandomPrune(rate=0.5), RandomPrune(rate=0.6), TopK(keep=0.3)])
def test_pruned_entries_are_missing_not_small(
    seen: Observation, model: nn.Module, batch: Batch, defense: Defense
) -> None:
    pruned = replace(seen, update=defense.protect(seen.update, derive(3)).update)
    kept, every, best = (psnr(ratio(rows=r)(pruned, model, derive(0)).images, batch.images) for r in get_args(Rows))
    assert kept > every + 2
    assert kept > best - 0.1
    assert kept > 90 or isinstance(defense, TopK)


def test_the_nearest_matrix_of_rank_one_is_found_through_holes() -> None:
    left, right = torch.randn(20, generator=derive(0)).double(), torch.randn(9, generator=derive(1)).double()
    matrix = torch.outer(left, right) * (torch.rand(20, 9, generator=derive(2)) > 0.6)
    found = nearest_rank_one(matrix, missing=True)
    assert torch.allclose(found / found[0], right / right[0], atol=1e-8)
    whole = nearest_rank_one(torch.outer(left, right), missing=True)
    assert torch.equal(whole, nearest_rank_one(torch.outer(left, right), missing=False))


def test_what_a_later_layer_draws_does_not_matter(batch: Batch) -> None:
    """K10: PRECODE's bottleneck changes the gradient at every draw, and the ratio of its parts at none."""
    net = precoded(32, 16)
    seen = observe(net, batch)
    draws = [local_update(net, state_of(net), batch, Protocol(), derive(i))[0] for i in range(5)]
    assert len({u.delta["net.fc1.bias"].sum().item() for u in draws}) == 5
    found = [ratio()(replace(seen, update=u), net, derive(0)) for u in draws]
    assert min(psnr(f.images, batch.images).item() for f in found) > 100


def test_one_local_step_is_as_good_as_a_gradient(model: nn.Module, batch: Batch) -> None:
    seen = observe(model, batch, Protocol(mode="fedavg"))
    assert psnr(ratio()(replace(seen, protocol=None), model, derive(0)).images, batch.images).item() > 60


@pytest.mark.parametrize("dead", [1, 31])
def test_dead_units_do_no_harm(model: nn.Module, batch: Batch, dead: int) -> None:
    """A unit that never fires has gradient zero, and 0 / 0 is not an image; one living unit is enough."""
    with torch.no_grad():
        model.get_parameter("net.fc1.bias")[:dead] = -1e4
        model.get_parameter("net.fc1.bias")[dead:] = 10
    seen = observe(model, batch)
    assert int((seen.update.delta["net.fc1.bias"] == 0).sum()) == dead
    assert psnr(ratio()(seen, model, derive(0)).images, batch.images).item() > 90


def test_a_batch_gives_one_row_an_image_all_different() -> None:
    net = models.build("mlp", TASK, 0, widths=[256])
    batch = Batch(torch.rand(2, *TASK.image_shape, generator=derive(0)), torch.tensor([2, 7]))
    found = ratio()(observe(net, batch), net, derive(0))
    assert found.images.shape == batch.images.shape
    assert psnr(found.images[:1], found.images[1:]).item() < 20
    assert found.labels.tolist() == [2, 7]


def test_images_that_have_a_unit_of_their_own_are_all_found() -> None:
    """Unit i fires for image i alone, so that its row is that image."""
    net = models.build("mlp", TASK, 0, widths=[3])
    batch = Batch(torch.eye(64)[[5, 20, 40]].view(3, 1, 8, 8), torch.tensor([1, 2, 3]))
    with torch.no_grad():
        net.get_parameter("net.fc1.weight").copy_(torch.eye(64)[[5, 20, 40]])
        net.get_parameter("net.fc1.bias").zero_()
    found = ratio()(observe(net, batch), net, derive(0))
    assert psnr(found.images[match(found.images, batch.images)], batch.images).min().item() > 90


def test_the_row_of_the_largest_height_comes_first() -> None:
    """It is the one that noise changes least."""
    gradient = torch.tensor([[1.0, 0.01], [2.0, -10.0], [3.0, 5.0]])
    assert distinct_rows(gradient, 1).tolist() == [[pytest.approx(-0.2)]]


def test_fewer_rows_than_images_are_repeated_not_invented() -> None:
    gradient = 2 * torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])  # the last one of a dead unit
    found = distinct_rows(gradient, 4)
    assert sorted(map(tuple, found[:2].tolist())) == [(0, 1), (1, 0)]
    assert set(map(tuple, found.tolist())) == {(0, 1), (1, 0)}


@pytest.mark.parametrize("name", ["lenet", "cnn"])
def test_a_convolution_first_is_refused_with_advice(name: str, batch: Batch) -> None:
    net = models.build(name, TASK, 0)
    with pytest.raises(UnmetKnowledgeError, match=r"Linear\(64, ...\).*is Conv2d.*: use the model softmax or mlp"):
        ratio()(observe(net, batch), net, derive(0))


def test_a_first_layer_without_bias_or_of_part_of_the_image_is_refused() -> None:
    for layer in (nn.Linear(64, 5, bias=False), nn.Linear(32, 5)):
        with pytest.raises(UnmetKnowledgeError, match="with a bias"):
            first_linear(nn.Sequential(nn.Flatten(), layer), 64)
    assert first_linear(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), 64) == ("1.weight", "1.bias")


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_an_update_without_an_image_is_said_to_be_so(seen: Observation, model: nn.Module, value: float) -> None:
    nothing = map_tree(lambda t: torch.full_like(t, value), seen.update.delta)
    found = ratio()(replace(seen, update=replace(seen.update, delta=nothing)), model, derive(0))
    assert found.outcome is Outcome.NON_FINITE
    assert found.loss == math.inf
