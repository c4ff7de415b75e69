"""The density of stacks of defenses, against formulas written out entry by entry."""

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Generator

from attacks.likelihoods import DefenseDensity, informs
from attacks.likelihoods.density import Stack
from defenses.clipping import Clip
from defenses.dpsgd import DpSgd
from defenses.noise import Gaussian, Laplace
from defenses.quantization import Quantize
from defenses.sparsification import RandomPrune, TopK
from fl_sim.core.contracts import AnyDefense, DataDefense, Defense
from fl_sim.core.density import Normal
from fl_sim.core.errors import NoDensityError
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat
from fl_sim.core.types import Batch, Tensors, Update
from tests.attacks.entries import NOISE, SHAPES, STD, SUPPOSED, TRIALS, cell, entries, found, sent, summed, tree
from tests.attacks.problems import cost, made_up


class Anything(DataDefense):
    def transform(self, batch: Batch, rng: Generator) -> Batch:
        return batch


def test_nothing_at_all_is_a_little_gaussian_noise() -> None:
    observed, clean = tree("truth"), tree("guess", trials=TRIALS)
    expected = summed(observed, clean, lambda _, g, c: stats.norm.logpdf(g, c, SUPPOSED))
    assert found((), observed, clean) == pytest.approx(expected)


@pytest.mark.parametrize("law", ["gaussian", "laplace"])
def test_pruning_before_noise_with_a_known_mask(law: str) -> None:
    loud: Defense = Gaussian(std=STD) if law == "gaussian" else Laplace(scale=STD)
    of = stats.norm if law == "gaussian" else stats.laplace
    stack = (RandomPrune(rate=0.5), loud)
    (observed, drawn), clean = sent(*stack), tree("guess", trials=TRIALS)
    masked = {k: t * drawn[f"0/mask/{k}"] for k, t in clean.items()}
    expected = summed(observed, masked, lambda _, g, c: of.logpdf(g, c, STD))
    assert found(stack, observed, clean, drawn) == pytest.approx(expected)
    assert found(stack, observed, clean) != pytest.approx(expected)


def kept_or_pruned(g: float, c: float) -> tuple[float, float]:
    """Log joint probabilities of an entry and of having been kept, or pruned at a rate of 0.3."""
    return math.log(0.7) + float(NOISE.logpdf(g - c)), math.log(0.3) + float(NOISE.logpdf(g))


def test_pruning_before_noise_with_an_unknown_mask_and_its_derivative() -> None:
    """By the responsibility of "kept": ``rho (g - c) / std^2``."""
    stack = (RandomPrune(rate=0.3), Gaussian(std=STD))
    (observed, drawn), clean = sent(*stack), tree("guess", trials=TRIALS)
    expected = summed(observed, clean, lambda _, g, c: float(np.logaddexp(*kept_or_pruned(g, c))))
    assert found(stack, observed, clean) == pytest.approx(expected)
    live = {k: t.clone().requires_grad_() for k, t in clean.items()}
    problem = made_up(observed, *stack, drawn=drawn)
    loss = cost(DefenseDensity(randomness="ignored"), live, problem)
    assert (-loss).tolist() == pytest.approx(expected)
    gradients = dict(zip(live, torch.autograd.grad(-loss.sum(), list(live.values())), strict=True))
    for trial in range(TRIALS):
        slopes = flat({k: t[trial] for k, t in gradients.items()}).tolist()
        for slope, (_, g, c) in zip(slopes, entries(observed, clean, trial), strict=True):
            kept, pruned = kept_or_pruned(g, c)
            assert slope == pytest.approx((g - c) / STD**2 / (1 + math.exp(pruned - kept)), rel=1e-6, abs=1e-9)


def rounded_cell(level: float, most: float) -> tuple[float, float]:
    """What is rounded to ``level`` by 8 bits where the largest entry is ``most``."""
    return max(level - most / 254, -most), min(level + most / 254, most)


@pytest.mark.parametrize("law", ["gaussian", "laplace"])
def test_rounding_after_noise_is_the_probability_of_the_cell(law: str) -> None:
    loud: Defense = Gaussian(std=STD) if law == "gaussian" else Laplace(scale=STD)
    of: Any = stats.norm(scale=STD) if law == "gaussian" else stats.laplace(scale=STD)
    (observed, _), clean = sent(loud, Quantize()), tree("guess", trials=TRIALS)
    most = {k: t.abs().max().item() for k, t in observed.items()}
    expected = summed(observed, clean, lambda k, g, c: cell(*rounded_cell(g, most[k]), c, of))
    assert found((loud, Quantize()), observed, clean) == pytest.approx(expected, rel=1e-5)


def least_kept(observed: Tensors, scope: str) -> dict[str, float]:
    """The smallest magnitude that was sent: of all, or of each tensor."""
    smallest = {k: min(abs(x) for x in t.flatten().tolist() if x) for k, t in observed.items()}
    return smallest if scope == "layer" else dict.fromkeys(smallest, min(smallest.values()))


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("noisy", [False, True], ids=["no noise", "after noise"])
def test_what_topk_kept_is_compared_and_what_not_lies_below(scope: Literal["global", "layer"], noisy: bool) -> None:
    stack: tuple[Defense, ...] = (*((Gaussian(std=STD),) if noisy else ()), TopK(keep=0.4, scope=scope))
    of = NOISE if noisy else stats.norm(scale=SUPPOSED)
    (observed, _), clean = sent(*stack), tree("guess", trials=TRIALS)
    least = least_kept(observed, scope)
    expected = summed(
        observed, clean, lambda k, g, c: float(of.logpdf(g - c)) if g else cell(-least[k], least[k], c, of)
    )
    assert 0 < (flat(observed) == 0).float().mean() < 1
    assert found(stack, observed, clean) == pytest.approx(expected, rel=1e-5)


def test_topk_and_rounding_after_noise() -> None:
    """Kept: in the cell of its level. Not kept: below the upper edge of the lowest cell that was."""
    stack = (Gaussian(std=STD), TopK(keep=0.4, scope="layer"), Quantize())
    (observed, _), clean = sent(*stack), tree("guess", trials=TRIALS)
    most = {k: t.abs().max().item() for k, t in observed.items()}
    reach = {k: least + most[k] / 254 for k, least in least_kept(observed, "layer").items()}
    expected = summed(
        observed,
        clean,
        lambda k, g, c: cell(*rounded_cell(g, most[k]), c) if g else cell(-reach[k], reach[k], c),
    )
    assert found(stack, observed, clean) == pytest.approx(expected, rel=1e-5)


def test_a_tensor_of_zeros_was_rounded_from_zeros() -> None:
    """Its largest entry would have been kept exactly: there is no cell."""
    observed, clean = {"zeros": torch.zeros(2).double()}, {"zeros": torch.full((1, 2), 0.2).double()}
    assert found((Quantize(),), observed, clean) == pytest.approx([2 * stats.norm.logpdf(0.2, 0, SUPPOSED)])


def test_a_tensor_of_which_nothing_was_kept_lies_below_what_was_kept_elsewhere() -> None:
    """Also where rounding comes last: its cells must not hide what topk says."""
    observed = {"large": torch.tensor([0.1, -0.05, 0.0]).double(), "small": torch.zeros(2).double()}
    clean = {k: t[None] + 0.01 for k, t in observed.items()}
    reach, half, of = 0.05 + 0.1 / 254, 0.1 / 254, stats.norm(scale=SUPPOSED)
    kept = cell(0.1 - half, 0.1, 0.11, of) + cell(-0.05 - half, -0.05 + half, -0.04, of)
    expected = kept + 3 * cell(-reach, reach, 0.01, of)
    assert found((TopK(keep=0.4), Quantize()), observed, clean) == pytest.approx([expected], rel=1e-5)


def test_before_noise_the_guess_is_pruned_clipped_or_left_as_it_is() -> None:
    observed, clean = tree("truth"), tree("guess", trials=TRIALS)
    for defense in (TopK(keep=0.3), TopK(keep=0.3, scope="layer"), Clip(norm=0.5), Clip(norm=0.2, scope="layer")):
        guesses = [{k: t[i] for k, t in clean.items()} for i in range(TRIALS)]
        done = [defense.protect(Update(delta=g, num_examples=1), derive(0)).update.delta for g in guesses]
        became = {k: torch.stack([d[k] for d in done]) for k in SHAPES}
        expected = summed(observed, became, lambda _, g, c: float(NOISE.logpdf(g - c)))
        assert found((defense, Gaussian(std=STD)), observed, clean) == pytest.approx(expected)
        assert found((Gaussian(std=STD),), observed, clean) != pytest.approx(expected)
    rounded = found((Quantize(), Gaussian(std=STD)), observed, clean)
    assert rounded == pytest.approx(found((Gaussian(std=STD),), observed, clean))


def test_without_noise_what_cannot_be_undone_is_supposed_to_come_before_it() -> None:
    observed, clean = tree("truth"), tree("guess", trials=TRIALS)
    became = Clip(norm=0.5).shortened(clean)
    expected = summed(observed, became, lambda _, g, c: stats.norm.logpdf(g, c, SUPPOSED))
    assert found((Clip(norm=0.5),), observed, clean) == pytest.approx(expected)


LOUD, DP = Gaussian(std=0.1), DpSgd(clip=1.0, noise_multiplier=0.1)
WITHOUT: dict[str, tuple[tuple[AnyDefense, ...], str]] = {
    "two laws": ((Laplace(scale=0.1), LOUD), "several noises"),
    "two of another law": ((Laplace(scale=0.1), Laplace(scale=0.1)), "several noises"),
    "clipped between noises": ((LOUD, Clip(norm=1.0), LOUD), "Clip between noises"),
    "topk between dpsgd and noise": ((DP, TopK(keep=0.5), LOUD), "TopK between noises"),
    "clipped after noise": ((LOUD, Clip(norm=1.0)), "Clip after noise"),
    "clipped after dpsgd": ((DP, Clip(norm=1.0)), "Clip after noise"),
    "rounded, then clipped, after noise": ((LOUD, Clip(norm=1.0), Quantize()), "Clip after noise"),
    "clipped, then rounded, after noise": ((LOUD, Quantize(), Clip(norm=1.0)), "Clip after noise"),
    "two defenses on examples": ((DP, DP), "several defenses on examples"),
    "transformed images": ((Anything(), LOUD), "Anything: no density"),
}


@pytest.mark.parametrize("name", WITHOUT)
def test_a_stack_without_a_density_is_refused_and_treated_as_its_noise_alone(name: str) -> None:
    """As undefended, where its noises do not add."""
    stack, reason = WITHOUT[name]
    loud = tuple(d for d in stack if isinstance(d, (Gaussian, Laplace, DpSgd)))
    alone = () if reason.startswith("several") else loud
    observed, clean = tree("truth"), tree("guess", trials=TRIALS)
    with pytest.raises(NoDensityError, match=reason):
        Stack.read(stack, Update(delta=observed, num_examples=1), {}, Normal(SUPPOSED))
    if DP in alone:
        return  # wants the gradients of examples
    assert found(stack, observed, clean) == pytest.approx(found(alone, observed, clean))
    assert not informs(stack)


def test_two_gaussian_noises_are_one_whose_variance_is_their_sum() -> None:
    stack = (TopK(keep=0.3), Gaussian(std=0.3), Gaussian(std=0.4), Quantize())
    (observed, _), clean = sent(*stack), tree("guess", trials=TRIALS)
    together = found((TopK(keep=0.3), Gaussian(std=0.5), Quantize()), observed, clean)
    assert found(stack, observed, clean) == pytest.approx(together)
    assert informs(stack)


def test_what_two_gaussian_noises_add_is_distributed_as_their_density_says() -> None:
    update = Update(delta={"w": torch.zeros(20_000)}, num_examples=1)
    stack = (Gaussian(std=0.3), Gaussian(std=0.4))
    for place, defense in enumerate(stack):
        update = defense.protect(update, derive(1, place)).update
    law = Stack.read(stack, update, {}, Normal(SUPPOSED)).noise
    assert isinstance(law, Normal)
    assert stats.kstest(update.delta["w"].numpy(), stats.norm(scale=law.std).cdf).pvalue > 0.01
    assert stats.kstest(update.delta["w"].numpy(), stats.norm(scale=0.4).cdf).pvalue < 1e-6


def test_noise_of_examples_and_of_the_update_add() -> None:
    """DP-SGD's on the mean of four images: 1.5 * 2 / 4; then gaussian's."""
    stack = (DpSgd(clip=2.0, noise_multiplier=1.5), Gaussian(std=1.0))
    stacked = Stack.read(stack, Update(delta=tree("truth"), num_examples=4), {}, Normal(SUPPOSED))
    assert isinstance(stacked.noise, Normal)
    assert stacked.noise.std == pytest.approx(1.25)
    assert (stacked.join, stacked.before) == (stack[0], ())
    assert informs(stack)
