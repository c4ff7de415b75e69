"""Each likelihood against numpy on the flat vectors of each trial."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks.likelihoods import L1, L2, Cosine, DefenseDensity, KeptL2, Likelihood
from attacks.problem import Problem
from defenses.noise import Gaussian
from defenses.quantization import Quantize
from defenses.sparsification import TopK
from fl_sim.core.contracts import Defense
from fl_sim.core.knowledge import DefenseKnowledge, Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat, scale
from fl_sim.core.types import Batch, Observation, Protocol, Tensors
from tests.conftest import observe

Vector = NDArray[np.float64]
SHAPES = {"w": (5, 4), "b": (5,)}
TRIALS = 3


def problem_of(seen: Observation, model: nn.Module, *defenses: Defense) -> Problem:
    known = Knowledge(defense_level=DefenseKnowledge.PARAMETERS, defenses=defenses)
    return Problem.of(replace(seen, knowledge=known), model, derive(0), "cpu")


@pytest.fixture
def problem(seen: Observation, model: nn.Module) -> Problem:
    """A target of two tensors, a third of whose entries are zero."""
    target = {k: torch.randn(s, generator=derive(0, k)) for k, s in SHAPES.items()}
    pruned = {k: t * (torch.rand(t.shape, generator=derive(1, k)) > 1 / 3) for k, t in target.items()}
    return replace(problem_of(seen, model), target=pruned)


def guesses() -> Tensors:
    return {k: torch.randn(TRIALS, *s, generator=derive(2, k)) for k, s in SHAPES.items()}


def vectors(tree: Tensors, trial: int) -> Vector:
    return np.concatenate([t[trial].double().numpy().ravel() for t in tree.values()])


def cosine(g: Vector, t: Vector) -> float:
    return float(g @ t / np.linalg.norm(g) / np.linalg.norm(t))


FORMULAS: dict[str, tuple[Likelihood, Callable[[Vector, Vector], float]]] = {
    "l2": (L2(), lambda g, t: float(((g - t) ** 2).sum())),
    "l1": (L1(), lambda g, t: float(np.abs(g - t).sum())),
    "kept": (KeptL2(), lambda g, t: float(((g - t)[t != 0] ** 2).sum())),
    "cosine": (Cosine(), lambda g, t: 1 - cosine(g, t)),
    "profile": (Cosine(form="profile"), lambda g, t: float(np.log(1 - cosine(g, t) * abs(cosine(g, t)) + 0.1) / 2)),
    "kept cosine": (Cosine(over="kept"), lambda g, t: 1 - cosine(g[t != 0], t[t != 0])),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_each_trial_gets_its_own_formula(name: str, problem: Problem) -> None:
    likelihood, formula = FORMULAS[name]
    target = flat(problem.target).double().numpy()
    expected = [formula(vectors(guesses(), i), target) for i in range(TRIALS)]
    assert likelihood(guesses(), problem).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", FORMULAS)
def test_every_likelihood_is_least_at_the_target(name: str, problem: Problem) -> None:
    likelihood, _ = FORMULAS[name]
    at_target = likelihood({k: t[None] for k, t in problem.target.items()}, problem)
    floor = np.log(0.1) / 2 if name == "profile" else 0.0  # a log-likelihood has no natural zero
    assert at_target.item() == pytest.approx(floor, abs=1e-3)
    assert bool((likelihood(guesses(), problem) > floor + 0.1).all())


@pytest.mark.parametrize("factor", [1e-10, 1e3])
@pytest.mark.parametrize("name", FORMULAS)
def test_those_that_need_a_scale_are_those_that_see_it(name: str, factor: float, problem: Problem) -> None:
    likelihood, _ = FORMULAS[name]
    rescaled = replace(problem, target=scale(problem.target, factor))
    blind = torch.allclose(likelihood(guesses(), problem), likelihood(guesses(), rescaled), rtol=1e-4)
    assert blind == (not likelihood.needs_scale)
    if blind:
        larger = likelihood(scale(guesses(), factor), problem)
        assert torch.allclose(larger, likelihood(guesses(), problem), rtol=1e-4)


def test_what_was_not_kept_is_ignored(problem: Problem) -> None:
    changed = {k: g + 7 * (problem.target[k] == 0) for k, g in guesses().items()}
    for likelihood in (KeptL2(), Cosine(over="kept")):
        assert torch.equal(likelihood(changed, problem), likelihood(guesses(), problem))
    assert not torch.allclose(L2()(changed, problem), L2()(guesses(), problem))


def test_the_profile_cosine_tells_opposite_from_orthogonal(problem: Problem) -> None:
    opposite = {k: -t[None] for k, t in problem.target.items()}
    assert Cosine(form="profile")(opposite, problem).item() == pytest.approx(np.log(2.1) / 2, abs=1e-3)
    assert Cosine(form="plain")(opposite, problem).item() == pytest.approx(2, abs=1e-5)


def image_gradient(likelihood: Likelihood, problem: Problem, images: Tensor) -> Tensor:
    images = images.detach().requires_grad_()
    cost = likelihood(problem.gradients(images, problem.labels.expand(len(images), -1)), problem)
    (found,) = torch.autograd.grad(cost.sum(), images)
    return found


def test_a_gaussian_density_and_squared_error_pull_alike(seen: Observation, model: nn.Module) -> None:
    """K14: -log p and L2 / (2 std^2) differ by a constant."""
    noisy = replace(seen, update=Gaussian(std=0.1).protect(seen.update, derive(1)).update)
    problem = problem_of(noisy, model, Gaussian(std=0.1))
    images = torch.rand(2, 1, 1, 8, 8, generator=derive(3))
    density, squares = image_gradient(DefenseDensity(), problem, images), image_gradient(L2(), problem, images) / 0.02
    assert (density - squares).abs().max() < 1e-5 * squares.abs().max()


def test_the_density_is_the_defenses_own_in_the_units_that_were_sent(model: nn.Module, batch: Batch) -> None:
    sent = observe(model, batch, Protocol(mode="fedavg", learning_rate=0.2))
    defense = Gaussian(std=0.05)
    problem = problem_of(sent, model, defense)
    found = DefenseDensity()(problem.gradients(torch.zeros(1, 1, 1, 8, 8), problem.labels[None]), problem)
    black = observe(model, Batch(torch.zeros(1, 1, 8, 8), batch.labels), sent.protocol).update.delta
    assert found.item() == pytest.approx(-defense.log_likelihood(sent.update.delta, black, Knowledge()).item())


@pytest.mark.parametrize(
    ("defenses", "stand_in"),
    [((), L2()), ((Quantize(),), L2()), ((TopK(keep=0.3),), KeptL2()), ((Gaussian(std=0.1), Quantize()), L2())],
    ids=["undefended", "quantize", "topk", "a stack"],
)
def test_without_a_density_the_surrogate_stands_in(
    seen: Observation, model: nn.Module, defenses: tuple[Defense, ...], stand_in: Likelihood
) -> None:
    for defense in defenses:
        seen = replace(seen, update=defense.protect(seen.update, derive(0)).update)
    problem = problem_of(seen, model, *defenses)
    black = problem.gradients(torch.zeros(1, 1, 1, 8, 8), problem.labels[None])
    expected = stand_in(black, problem).item() / (2 * 0.5**2)
    assert DefenseDensity(std=0.5)(black, problem).item() == pytest.approx(expected)
