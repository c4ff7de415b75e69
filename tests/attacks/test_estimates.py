"""An adversary who knows which mechanisms there are: how it estimates their strength, and how far that carries it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attacks import ATTACKS
from attacks.likelihoods import DefenseDensity
from attacks.likelihoods.estimates import estimated, mechanisms
from defenses.clipping import Clip
from defenses.low_rank import Sketch
from defenses.noise import Gaussian
from defenses.quantization import Quantize
from defenses.sparsification import RandomPrune, TopK
from fl_sim import models
from fl_sim.core.contracts import AnyDefense, Attack, Defense, kind_of
from fl_sim.core.density import Choice, Interval, Normal, log_likelihood
from fl_sim.core.errors import NoDensityError
from fl_sim.core.knowledge import DefenseKnowledge, Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Observation, Tensors
from fl_sim.metrics.image import psnr
from tests.attacks.problems import cost, made_up
from tests.conftest import TASK, observe

LABEL = torch.tensor([2])
IMAGE = torch.rand(1, *TASK.image_shape, generator=derive(0, "image"))
NET = models.build("mlp", TASK, 0, widths=[64])


def of_kind(*stack: AnyDefense) -> Knowledge:
    return Knowledge(labels=LABEL, defense_level=DefenseKnowledge.KIND, defense_kinds=tuple(map(kind_of, stack)))


def in_full(*stack: AnyDefense) -> Knowledge:
    return Knowledge(labels=LABEL, defense_level=DefenseKnowledge.PARAMETERS, defenses=stack)


def seen_through(*stack: Defense, net: nn.Module = NET) -> Observation:
    seen = observe(net, Batch(IMAGE, LABEL))
    update = seen.update
    for place, defense in enumerate(stack):
        update = defense.protect(update, derive(2, place)).update
    return replace(seen, update=update)


def test_the_last_is_estimated_first_and_its_noise_told_to_those_before() -> None:
    stack = (Clip(norm=0.5), Gaussian(std=1e-3))
    clip, noise = estimated(of_kind(*stack), seen_through(*stack).update)
    assert isinstance(clip, Clip)
    assert isinstance(noise, Gaussian)
    assert clip.norm == pytest.approx(0.5, rel=0.02)
    assert noise.std == pytest.approx(1e-3, rel=0.4)


def test_what_is_granted_is_not_estimated_and_what_is_unknown_is_nothing() -> None:
    stack = (Gaussian(std=0.7),)
    update = seen_through(*stack).update
    assert mechanisms(in_full(*stack), update) == stack
    assert mechanisms(Knowledge(), update) == ()


@pytest.mark.parametrize("stack", [(TopK(keep=0.1, feedback=True),), (Sketch(ratio=0.5), Gaussian(std=0.1))], ids=repr)
def test_where_one_cannot_be_estimated_none_is_used(stack: tuple[Defense, ...]) -> None:
    update = seen_through(Gaussian(std=0.1)).update
    with pytest.raises(NoDensityError):
        estimated(of_kind(*stack), update)
    assert mechanisms(of_kind(*stack), update) == ()


def guesses(observed: Tensors, trials: int = 2) -> Tensors:
    return {k: t + 0.3 * torch.randn((trials, *t.shape), generator=derive(1, k)).double() for k, t in observed.items()}


def log_p(observed: Tensors, clean: Tensors, known: Knowledge) -> Tensor:
    problem = made_up(observed)
    return -cost(DefenseDensity(), clean, replace(problem, seen=replace(problem.seen, knowledge=known)))


@pytest.mark.parametrize("before", [(), (Clip(norm=1.0),)], ids=["alone", "after a clip"])
def test_the_scale_of_noise_is_fitted_to_each_guess(before: tuple[Defense, ...]) -> None:
    observed: Tensors = {"w": torch.randn(8, 9, generator=derive(0)).double()}
    clean, known = guesses(observed), of_kind(*before, Gaussian(std=1.0))
    values = clean
    for defense in mechanisms(known, made_up(observed).seen.update)[:-1]:
        assert isinstance(defense, Defense)
        values = defense.choices(clean, {})[0].values
    scales = torch.logspace(-2, 1, 3000).tolist()
    exact = Interval(observed, observed)
    slowly = torch.stack([log_likelihood(exact, [Choice(1.0, values)], Normal(s)) for s in scales]).max(0).values
    assert log_p(observed, clean, known).tolist() == pytest.approx(slowly.tolist(), abs=1e-3)


@pytest.mark.parametrize(
    "stack", [(RandomPrune(rate=0.5), Gaussian(std=0.1)), (Gaussian(std=0.1), Quantize())], ids=["choices", "cells"]
)
def test_with_choices_or_cells_it_is_that_of_the_small_entries(stack: tuple[Defense, ...]) -> None:
    observed = {"w": torch.randn(20, 30, generator=derive(0)).double()}
    known, clean = of_kind(*stack), guesses(observed)
    found = mechanisms(known, made_up(observed).seen.update)
    assert log_p(observed, clean, known).tolist() == pytest.approx(log_p(observed, clean, in_full(*found)).tolist())


def test_a_mask_that_zeros_show_is_used_at_every_level() -> None:
    """As if it were granted."""
    defense = RandomPrune(rate=0.4)
    clean = {"w": torch.randn(1, 9, 5, generator=derive(0)).double()}
    drawn = defense.shown({"w": (torch.rand(9, 5, generator=derive(1)) < 0.6).double()})
    observed = {"w": clean["w"][0] * drawn["mask/w"]}
    granted = replace(in_full(defense), randomness={f"0/{k}": t for k, t in drawn.items()})
    levels = [of_kind(defense), in_full(defense), granted]
    assert len({log_p(observed, guesses(observed), known)[0].item() for known in levels}) == 1


def found(attack: Attack, seen: Observation, known: Knowledge, net: nn.Module) -> float:
    return psnr(attack(replace(seen, knowledge=known), net, derive(0)).images, IMAGE).item()


STACKS: dict[str, tuple[Defense, ...]] = {
    "gaussian": (Gaussian(std=0.01),),
    "clip": (Clip(norm=0.2),),
    "quantize": (Quantize(bits=4),),
    "prune and noise": (RandomPrune(rate=0.7), Gaussian(std=0.02)),
}


@pytest.mark.parametrize("name", STACKS)
def test_estimates_carry_as_far_as_the_parameters(name: str) -> None:
    """Within 2 dB; where most of the gradient is pruned, 5 dB farther than attacks that know of no defense."""
    stack, bayes = STACKS[name], ATTACKS["bayes"](steps=60, tv=0.02)
    net = NET if name != "prune and noise" else models.build("softmax", TASK, 0)
    seen = seen_through(*stack, net=net)
    kind = found(bayes, seen, of_kind(*stack), net)
    assert kind > found(bayes, seen, in_full(*stack), net) - 2
    if name == "prune and noise":
        blind = [found(ATTACKS[b](steps=60), seen, Knowledge(labels=LABEL), net) for b in ("l2", "cosine")]
        assert kind > max(blind) + 5
