"""Local training on Poisson samples."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch
from fl_sim.training.local import State, gradient, local_update, minibatches, state_of
from tests.training.test_local import GREY, SEVERAL, draw, largest_difference

POISSON = replace(SEVERAL, sampling="poisson")


def test_poisson_samples_are_as_many_as_make_up_the_images_and_of_the_size_expected() -> None:
    batch, long = draw(GREY, 8), replace(POISSON, local_epochs=400)
    parts = list(minibatches(batch, long, derive(0)))
    assert len(parts) == long.steps(8) == 400 * round(8 / 3)
    sizes = torch.tensor([len(part.labels) for part in parts]).double()
    assert sizes.mean().item() == pytest.approx(3.0, abs=0.15)
    assert sizes.var().item() == pytest.approx(8 * 3 / 8 * 5 / 8, rel=0.15)  # binomial
    assert 0 in sizes
    seen = torch.cat([part.labels for part in parts]).bincount() / len(parts)
    assert (seen - 3 / 8).abs().max() < 0.06  # each image with its own chance
    assert replace(POISSON, batch_size=20).rate(8) == 1.0


@pytest.mark.parametrize("images", [1, 9])
def test_a_poisson_step_is_the_sum_over_the_size_expected(images: int, model: nn.Module) -> None:
    """Against single gradients, image by image, also where a sample is empty (one image at a rate of a third)."""
    batch = draw(GREY, 9)
    batch = batch if images == 9 else Batch(batch.images[:1], batch.labels[:1])
    protocol = replace(POISSON, local_epochs=6, batch_size=3 if images == 9 else 1, momentum=0.0)
    update, _ = local_update(model, state_of(model), batch, protocol, derive(1))
    rng, state = derive(1), state_of(model)
    for _ in range(protocol.steps(images)):
        drawn = [i for i, u in enumerate(torch.rand(images, generator=rng).tolist()) if u < protocol.rate(images)]
        total = {name: torch.zeros_like(w) for name, w in state.weights.items()}
        for i in drawn:
            one = gradient(model, state, Batch(batch.images[i, None], batch.labels[i, None])).tree
            total = {name: t + one[name] for name, t in total.items()}
        step = protocol.learning_rate / protocol.batch_size
        state = State({name: w - step * total[name] for name, w in state.weights.items()}, state.buffers)
    start = state_of(model).weights
    assert largest_difference(update.delta, {name: w - start[name] for name, w in state.weights.items()}) < 1e-6


def test_empty_samples_move_nothing_and_have_no_loss(model: nn.Module) -> None:
    rare = replace(POISSON, batch_size=1, local_epochs=1)
    nothing = Batch(torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64))
    assert all(bool((t == 0).all()) for t in gradient(model, state_of(model), nothing).tree.values())
    found = [local_update(model, state_of(model), draw(GREY, 2), rare, derive(seed)) for seed in range(20)]
    empty = [loss for update, loss in found if all(bool((t == 0).all()) for t in update.delta.values())]
    assert 0 < len(empty) < 20
    assert all(math.isnan(loss) for loss in empty)
