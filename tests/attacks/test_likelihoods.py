"""Each distance against loops over the tensors of each trial, in numpy."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from attacks.likelihoods import L1, L2, Cosine, DefenseDensity, Layers, Likelihood, Nothing
from attacks.problem import Problem
from defenses.noise import Gaussian, Laplace
from fl_sim.core.contracts import Defense
from fl_sim.core.seeds import derive
from fl_sim.core.trees import scale
from fl_sim.core.types import Observation, Tensors
from tests.attacks.problems import cost, image_gradient, made_up, problem_of

Vector = NDArray[np.float64]
Pairs = Sequence[tuple[Vector, Vector]]  # of each tensor: the guess's entries and the target's
SHAPES = {"fc.weight": (5, 4), "fc.bias": (5,), "head.weight": (3, 5), "head.bias": (3,)}
EQUAL, FALLING = [1, 1, 1, 1], [1, 1, math.exp(-1), math.exp(-1)]
TRIALS = 3
EXPONENTIAL, DROPPED = Layers(weights="exponential"), Layers(weights="exponential", dropped=("fc.bias", "head.bias"))


@pytest.fixture
def problem() -> Problem:
    """A target of four tensors, a third of whose entries are zero."""
    target = {k: torch.randn(s, generator=derive(0, k)) for k, s in SHAPES.items()}
    return made_up({k: t * (torch.rand(t.shape, generator=derive(1, k)) > 1 / 3) for k, t in target.items()})


def guesses() -> Tensors:
    return {k: torch.randn(TRIALS, *s, generator=derive(2, k)) for k, s in SHAPES.items()}


def pairs(tree: Tensors, target: Tensors, trial: int) -> Pairs:
    return [(tree[k][trial].double().numpy().ravel(), target[k].double().numpy().ravel()) for k in SHAPES]


def squares(p: Pairs, by: Sequence[float]) -> float:
    return sum(w * float(((g - t) ** 2).sum()) for w, (g, t) in zip(by, p, strict=True))


def absolutes(p: Pairs, by: Sequence[float]) -> float:
    return sum(w * float(np.abs(g - t).sum()) for w, (g, t) in zip(by, p, strict=True))


def cosine(p: Pairs, by: Sequence[float] = EQUAL) -> float:
    dot, guess, target = (
        sum(w * float((x[a] * x[b]).sum()) for w, x in zip(by, p, strict=True)) for a, b in ((0, 1), (0, 0), (1, 1))
    )
    return dot / math.sqrt(guess * target)


def where_observed(p: Pairs) -> Pairs:
    return [(g[t != 0], t[t != 0]) for g, t in p]


def profile(c: float) -> float:
    return math.log(1 - c * abs(c) + 0.1) / 2


FORMULAS: dict[str, tuple[Likelihood, Callable[[Pairs], float]]] = {
    "l2": (L2(), lambda p: squares(p, EQUAL)),
    "l2, exponential": (L2(layers=EXPONENTIAL), lambda p: squares(p, FALLING)),
    "l2, dropped": (L2(layers=DROPPED), lambda p: squares(p[::2], FALLING[::2])),
    "l1": (L1(), lambda p: absolutes(p, EQUAL)),
    "l1, dropped": (L1(layers=DROPPED), lambda p: absolutes(p[::2], FALLING[::2])),
    "cosine": (Cosine(), lambda p: 1 - cosine(p)),
    "cosine, exponential": (Cosine(layers=EXPONENTIAL), lambda p: 1 - cosine(p, FALLING)),
    "cosine, dropped": (Cosine(layers=DROPPED), lambda p: 1 - cosine(p[::2], FALLING[::2])),
    "cosine, observed": (Cosine(support="observed"), lambda p: 1 - cosine(where_observed(p))),
    "cosine, per tensor": (Cosine(per="tensor"), lambda p: float(np.mean([1 - cosine([x], [1]) for x in p]))),
    "cosine, dropped per tensor": (
        Cosine(per="tensor", layers=Layers(dropped=("fc.weight",))),
        lambda p: float(np.mean([1 - cosine([x], [1]) for x in p[1:]])),
    ),
    "profile": (Cosine(form="profile"), lambda p: profile(cosine(p))),
    "profile, observed per tensor": (
        Cosine(form="profile", per="tensor", support="observed"),
        lambda p: float(np.mean([profile(cosine([x], [1])) for x in where_observed(p)])),
    ),
    "profile, per tensor": (
        Cosine(form="profile", per="tensor"),
        lambda p: float(np.mean([profile(cosine([x], [1])) for x in p])),
    ),
}
named = pytest.mark.parametrize("name", FORMULAS)


@named
def test_each_trial_gets_its_own_formula(name: str, problem: Problem) -> None:
    likelihood, formula = FORMULAS[name]
    expected = [formula(pairs(guesses(), problem.target, i)) for i in range(TRIALS)]
    assert cost(likelihood, guesses(), problem).tolist() == pytest.approx(expected, rel=1e-5)


@named
def test_every_likelihood_is_least_at_the_target(name: str, problem: Problem) -> None:
    likelihood, _ = FORMULAS[name]
    at_target = cost(likelihood, {k: t[None] for k, t in problem.target.items()}, problem)
    floor = np.log(0.1) / 2 if name.startswith("profile") else 0.0  # a log-likelihood has no natural zero
    assert at_target.item() == pytest.approx(floor, abs=1e-3)
    assert bool((cost(likelihood, guesses(), problem) > floor + 0.1).all())


@pytest.mark.parametrize("factor", [1e-10, 1e3])
@named
def test_those_that_need_a_scale_are_those_that_see_it(name: str, factor: float, problem: Problem) -> None:
    likelihood, _ = FORMULAS[name]
    rescaled = replace(problem, targets=scale(problem.targets, factor))
    blind = torch.allclose(cost(likelihood, guesses(), problem), cost(likelihood, guesses(), rescaled), rtol=1e-4)
    assert blind == (not likelihood.needs_scale)
    if blind:
        larger = cost(likelihood, scale(guesses(), factor), problem)
        assert torch.allclose(larger, cost(likelihood, guesses(), problem), rtol=1e-4)


def test_a_dropped_parameter_is_not_asked_for(problem: Problem) -> None:
    """A defense may have made nonsense of it."""
    spoilt = {k: g * (torch.nan if k.endswith("bias") else 1) for k, g in guesses().items()}
    for likelihood in (L2(layers=DROPPED), L1(layers=DROPPED), Cosine(layers=DROPPED)):
        assert torch.equal(cost(likelihood, spoilt, problem), cost(likelihood, guesses(), problem))
        assert bool(cost(likelihood, spoilt, problem).isfinite().all())


def test_layers_fall_by_e_and_a_weight_and_its_bias_are_one_layer() -> None:
    """K16."""
    names = ["net.conv.weight", "net.norm.weight", "net.norm.bias", "net.head.weight", "net.head.bias"]
    falling = Layers(weights="exponential", dropped=("net.norm.weight",)).of(names)
    assert falling == pytest.approx(
        {names[0]: 1, names[2]: math.exp(-1), names[3]: math.exp(-2), names[4]: math.exp(-2)}
    )
    assert list(falling) == [names[0], *names[2:]]
    assert set(Layers().of(names).values()) == {1.0}
    assert list(Layers().of(names)) == names


def test_the_profile_cosine_tells_opposite_from_orthogonal(problem: Problem) -> None:
    opposite = {k: -t[None] for k, t in problem.target.items()}
    assert cost(Cosine(form="profile"), opposite, problem).item() == pytest.approx(np.log(2.1) / 2, abs=1e-3)
    assert cost(Cosine(form="plain"), opposite, problem).item() == pytest.approx(2, abs=1e-5)


@named
def test_a_guess_without_gradient_can_be_left(name: str, problem: Problem) -> None:
    """All units dead, or an image that the model is sure of: finite, and with a finite derivative."""
    zeros = {k: torch.zeros(1, *s).requires_grad_() for k, s in SHAPES.items()}
    total = cost(FORMULAS[name][0], zeros, problem).sum()
    found = torch.autograd.grad(total, list(zeros.values()), allow_unused=True)
    assert math.isfinite(total.item())
    assert all(bool(g.isfinite().all()) for g in found if g is not None)


def test_nothing_asks_for_nothing_and_says_nothing(problem: Problem) -> None:
    misfit = Nothing().bind(problem)
    assert misfit.of == "nothing"
    assert bool((misfit.cost({}) == 0).all())


@pytest.mark.parametrize(
    ("defense", "distance", "factor"),
    [(Gaussian(std=0.1), L2(), 1 / 0.02), (Laplace(scale=0.1), L1(), 1 / 0.1)],
    ids=["gaussian and l2", "laplace and l1"],
)
def test_a_noises_density_and_its_distance_pull_alike(
    seen: Observation, model: nn.Module, defense: Defense, distance: Likelihood, factor: float
) -> None:
    """K14: ``-log p`` and ``L2 / (2 std^2)`` differ by a constant, as do it and ``L1 / scale``."""
    noisy = replace(seen, update=defense.protect(seen.update, derive(1)).update)
    problem = problem_of(noisy, model, defense)
    images = torch.rand(2, 1, 1, 8, 8, generator=derive(3))
    density = image_gradient(DefenseDensity(), problem, images)
    plain = factor * image_gradient(distance, problem, images)
    assert (density - plain).abs().max() < 1e-5 * plain.abs().max()


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e3])
def test_a_relative_square_is_in_units_of_the_targets_own(factor: float, problem: Problem) -> None:
    faint = replace(problem, targets=scale(problem.targets, factor))
    for layers in (Layers(), EXPONENTIAL):
        relative, plain = L2(relative=True, layers=layers), L2(layers=layers)
        nothing = {k: torch.zeros_like(g) for k, g in guesses().items()}
        assert cost(relative, nothing, faint).tolist() == pytest.approx([1.0] * TRIALS, rel=1e-5)
        twice = cost(plain, guesses(), problem) / cost(plain, nothing, problem)
        assert torch.allclose(cost(relative, scale(guesses(), factor), faint), twice, rtol=1e-4)
