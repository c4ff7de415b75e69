"""DP-SGD in local steps: one is a gradient, several are not."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from attacks.likelihoods import DefenseDensity
from attacks.likelihoods.density import Stack
from defenses.dpsgd import DpSgd
from fl_sim.core.density import Normal
from fl_sim.core.errors import NoDensityError
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat
from fl_sim.core.types import Batch, Observation, Protocol
from fl_sim.training.local import Gradient, State, gradient, local_update, state_of
from tests.attacks.problems import cost, guess_of, problem_of
from tests.attacks.test_defense_density import CLIP, MULTIPLIER, batch_of, private
from tests.conftest import TASK, observe

RATE = 0.2


def stepped(model: nn.Module, images: int, defense: DpSgd, **protocol: Any) -> Observation:
    """A weight change whose gradients the defense made."""
    batch, kind = batch_of(images), Protocol(**{"mode": "fedavg", "learning_rate": RATE, "batch_size": 3, **protocol})

    def rule(net: nn.Module, state: State, part: Batch) -> Gradient:
        tree = defense.gradient(net, state.weights, state.buffers, part, derive(2))
        return gradient(net, state, part)._replace(tree=tree)

    update, _ = local_update(model, state_of(model), batch, kind, derive(1), rule)
    return replace(observe(model, batch, kind), update=update)


@pytest.mark.parametrize("images", [1, 3])
def test_dpsgd_in_one_local_step_has_the_density_of_its_gradient(model: nn.Module, images: int) -> None:
    """A change of variables: every entry of the update is the learning rate times one of the gradient."""
    defense = DpSgd(clip=CLIP, noise_multiplier=MULTIPLIER)
    as_gradient = private(model, images, defense)
    as_change = problem_of(stepped(model, images, defense), model, defense)
    as_change = replace(as_change, labels=as_gradient.labels)
    assert torch.allclose(flat(as_change.target), flat(as_gradient.target), atol=1e-6)
    guess = guess_of(torch.rand(2, images, *TASK.image_shape, generator=derive(5)), as_gradient)
    one, other = (
        cost(DefenseDensity(), problem.example_gradients(guess), problem) for problem in (as_gradient, as_change)
    )
    entries = len(flat(as_gradient.target))
    assert torch.allclose(other, one + entries * math.log(RATE), rtol=1e-6)


def test_noise_of_one_local_step_is_as_large_as_its_samples_say(model: nn.Module) -> None:
    defense = DpSgd(clip=CLIP, noise_multiplier=MULTIPLIER)
    quiet, loud = (stepped(model, 3, d).update for d in (DpSgd(clip=CLIP, noise_multiplier=0), defense))
    residual = flat(loud.delta) - flat(quiet.delta)
    law = Stack.read((defense,), loud, {}, Normal(1.0), -RATE).noise
    assert residual.std().item() == pytest.approx(law.std, rel=4 / math.sqrt(2 * len(residual)))


def test_dpsgd_in_several_local_steps_has_no_density(model: nn.Module) -> None:
    """Its noise is drawn at every step; and of sampled batches nobody knows who is in them."""
    defense = DpSgd(clip=1.0, noise_multiplier=0.1)
    for seen in (
        stepped(model, 3, defense, local_epochs=2),
        stepped(model, 3, defense, batch_size=2),
        stepped(model, 3, defense, sampling="poisson"),
        replace(stepped(model, 3, defense), protocol=None),
    ):
        assert DefenseDensity().bind(problem_of(seen, model, defense)).of == "mean"
    seen = stepped(model, 3, defense)
    with pytest.raises(NoDensityError, match="local steps"):
        Stack.read((defense,), seen.update, {}, Normal(0.01))
    assert DefenseDensity().bind(problem_of(seen, model, defense)).of == "examples"
