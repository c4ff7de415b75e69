"""K13: likelihoods are held against data of the defenses themselves, not against formulas."""

import math
from collections.abc import Sequence

import pytest
import torch

from attacks.likelihoods import DefenseDensity
from defenses.clipping import Clip
from defenses.dpsgd import DpSgd
from defenses.noise import Gaussian, Laplace
from defenses.quantization import Packed, Quantize
from defenses.sparsification import RandomPrune, TopK
from fl_sim.core.contracts import AnyDefense, Defense
from fl_sim.core.density import Choice, Interval, LaplaceNoise, Noise, Normal, log_likelihood
from fl_sim.core.seeds import derive
from fl_sim.core.trees import add_normal, map_tree
from fl_sim.core.types import Tensors, Update
from tests.attacks.problems import cost, made_up

K = 40_000
N = 4
Sent = tuple[Tensors, Tensors]  # what is observed, and what was drawn


def truth(entries: int) -> Tensors:
    """Gradients of N examples, ``(1, N, k)``."""
    return {"w": 0.3 * torch.randn(1, N, entries, generator=derive(0, "truth")).double()}


def sent(defenses: Sequence[AnyDefense], examples: Tensors, seed: int) -> Sent:
    """As a client applies them, to a batch of N."""
    joined, drawn = map_tree(lambda t: t.mean(1), examples), dict[str, torch.Tensor]()
    update = Update(delta=map_tree(lambda t: t[0], joined), num_examples=N)
    for place, defense in enumerate(defenses):
        rng = derive(seed, "defense", place)
        if isinstance(defense, DpSgd):
            share = defense.noise_multiplier * defense.clip / N
            clipped = map_tree(lambda t: t[0], defense.join(examples))
            update = Update(delta=add_normal(clipped, share, rng), num_examples=N)
        elif isinstance(defense, Defense):
            protected = defense.protect(update, rng)
            update = protected.update
            drawn |= {f"{place}/{k}": t for k, t in protected.randomness.items()}
    return update.delta, drawn


def log_p(
    believed: Sequence[AnyDefense], what: Sent, examples: Tensors, likelihood: DefenseDensity | None = None
) -> float:
    problem = made_up(what[0], *believed, drawn=what[1], images=N)
    misfit = (likelihood or DefenseDensity()).bind(problem)
    return -misfit.cost(examples if misfit.of == "examples" else map_tree(lambda t: t.mean(1), examples)).item()


def normal(std: float) -> tuple[float, float]:
    """Mean and standard deviation of ``log p`` at the truth, of K entries."""
    return -K / 2 * (math.log(2 * math.pi * std**2) + 1), math.sqrt(K / 2)


def laplace(scale: float) -> tuple[float, float]:
    return -K * (math.log(2 * scale) + 1), math.sqrt(K)


CALIBRATED: dict[str, tuple[tuple[AnyDefense, ...], tuple[float, float]]] = {
    "gaussian": ((Gaussian(std=0.1),), normal(0.1)),
    "gaussian, per example": ((Gaussian(std=0.1, averaging="per_example"),), normal(0.05)),
    "laplace": ((Laplace(scale=0.1),), laplace(0.1)),
    "pruned": ((RandomPrune(rate=0.5, mask="fresh"), Gaussian(std=0.1)), normal(0.1)),
    "pruned, laplace": ((RandomPrune(rate=0.5), Laplace(scale=0.1)), laplace(0.1)),
    "topk": ((TopK(keep=0.1), Gaussian(std=0.1)), normal(0.1)),
    "clipped": ((Clip(norm=25.0), Gaussian(std=0.1)), normal(0.1)),
    "dpsgd": ((DpSgd(clip=55.0, noise_multiplier=0.2 / 55),), normal(0.05)),
    "dpsgd that only clips": ((DpSgd(clip=55.0, noise_multiplier=0), Laplace(scale=0.1)), laplace(0.1)),
}


@pytest.mark.parametrize("name", CALIBRATED)
def test_at_the_truth_the_likelihood_is_what_it_should_be(name: str) -> None:
    stack, (mean, std) = CALIBRATED[name]
    examples = truth(K)
    found = log_p(stack, sent(stack, examples, 1), examples)
    assert abs(found - mean) < 4 * std
    wrong = truth(K)["w"] + 0.05 * torch.randn(K, generator=derive(9)).double()
    assert log_p(stack, sent(stack, examples, 1), {"w": wrong}) < found - 4 * std  # and it is the truth's alone


@pytest.mark.parametrize("noise", [Gaussian(std=0.1), Laplace(scale=0.1)], ids=["gaussian", "laplace"])
@pytest.mark.parametrize("value", [0.0, 0.05, 0.7])
def test_with_an_unknown_mask_the_density_of_an_entry_integrates_to_one(value: float, noise: Defense) -> None:
    """As a density of what is observed, and to the moments of "kept or pruned"."""
    stack = (RandomPrune(rate=0.3), noise)
    step = 0.01
    grid = torch.arange(-3, 3, step, dtype=torch.float64) + step / 2
    problems = [made_up({"w": g[None]}, *stack) for g in grid]
    guess = {"w": torch.tensor([[value]], dtype=torch.float64)}
    density = torch.tensor([math.exp(-cost(DefenseDensity(), guess, p).item()) for p in problems]).double()
    assert (density.sum() * step).item() == pytest.approx(1, abs=1e-3)
    assert ((density * grid).sum() * step).item() == pytest.approx(0.7 * value, abs=1e-3)


@pytest.mark.parametrize("law", [Normal(0.1), LaplaceNoise(0.1)], ids=["gaussian", "laplace"])
@pytest.mark.parametrize("value", [0.0, 0.123])
def test_the_cells_of_all_levels_hold_everything(value: float, law: Noise) -> None:
    """Without a gap and without overlap."""
    most = Packed(8).levels
    levels = {"w": 0.01 * torch.arange(-most, most + 1, dtype=torch.float64)}
    cells, total = Quantize().bounds(Interval(levels, levels)), 0.0
    guess = [Choice(1.0, {"w": torch.tensor([[value]], dtype=torch.float64)})]
    for i in range(len(levels["w"])):
        one = Interval({"w": cells.low["w"][i, None]}, {"w": cells.high["w"][i, None]})
        total += log_likelihood(one, guess, law).exp().item()
    assert total == pytest.approx(1, abs=1e-5)


LOUD, PRUNED = Gaussian(std=0.1), RandomPrune(rate=0.3, mask="fresh")
AVERAGED, PRIVATE = Gaussian(std=0.1, averaging="per_example"), DpSgd(clip=12.0, noise_multiplier=0.03)
Stack = tuple[AnyDefense, ...]
WORSE: dict[str, tuple[Stack, Stack]] = {  # what is true, and what is believed instead
    "std too large": ((LOUD,), (Gaussian(std=0.12),)),
    "std too small": ((LOUD,), (Gaussian(std=0.09),)),
    "noise on the mean taken for noise on examples": ((LOUD,), (AVERAGED,)),
    "noise on examples taken for noise on the mean": ((AVERAGED,), (LOUD,)),
    "gaussian taken for laplace of its spread": ((LOUD,), (Laplace(scale=0.1 / math.sqrt(2)),)),
    "laplace taken for gaussian of its spread": ((Laplace(scale=0.1),), (Gaussian(std=0.1 * math.sqrt(2)),)),
    "pruning overlooked": ((PRUNED, LOUD), (LOUD,)),
    "pruning supposed": ((LOUD,), (PRUNED, LOUD)),
    "largest kept, overlooked": ((TopK(keep=0.2), LOUD), (LOUD,)),
    "clipping overlooked": ((Clip(norm=3.0), LOUD), (LOUD,)),
    "multiplier too small": ((PRIVATE,), (DpSgd(clip=12.0, noise_multiplier=0.02),)),
    "clip too large": ((PRIVATE,), (DpSgd(clip=15.0, noise_multiplier=0.024),)),
    "clipping of examples overlooked": ((PRIVATE,), (Gaussian(std=0.09),)),
    "std too large, seen through rounding": ((LOUD, Quantize()), (Gaussian(std=0.12), Quantize())),
}


def gains(true: Stack, believed: Stack, right: DefenseDensity, wrong: DefenseDensity) -> torch.Tensor:
    """``log p`` as it is minus ``log p`` as it is believed to be, of the same 20 draws."""
    examples = truth(2000)
    draws = [sent(true, examples, seed) for seed in range(20)]
    if believed != true:  # then what was drawn is not granted: it would be another mechanism's
        draws = [(update, {}) for update, _ in draws]
    return torch.tensor([log_p(true, d, examples, right) - log_p(believed, d, examples, wrong) for d in draws])


def is_positive(gain: torch.Tensor) -> bool:
    return bool(gain.mean() > 4 * gain.std() / math.sqrt(len(gain)))


@pytest.mark.parametrize("name", WORSE)
def test_a_wrong_belief_makes_the_data_less_likely(name: str) -> None:
    true, believed = WORSE[name]
    assert is_positive(gains(true, believed, DefenseDensity(), DefenseDensity()))


def test_a_mask_that_is_granted_and_ignored_makes_the_data_less_likely() -> None:
    """Known above unknown above a wrong rate: the order of K5."""
    stack = (PRUNED, LOUD)
    granted, ignored = DefenseDensity(), DefenseDensity(randomness="ignored")
    assert is_positive(gains(stack, stack, granted, ignored))
    for rate in (0.1, 0.6):
        assert is_positive(gains(stack, (RandomPrune(rate=rate, mask="fresh"), LOUD), ignored, ignored))
