from dataclasses import replace
from typing import Literal

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from attacks import ATTACKS
from attacks.likelihoods import L1, L2, Cosine, DefenseDensity, Likelihood, Nothing
from attacks.objective import Annealing
from attacks.posterior import PosteriorSearch
from attacks.priors import TotalVariation
from attacks.problem import Guess, Problem
from attacks.solvers import LBFGS, Adam, Solver
from attacks.variables import Pixels
from fl_sim.core.errors import ConfigError, UnmetKnowledgeError
from fl_sim.core.knowledge import DefenseKnowledge, Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Observation, Outcome, Protocol
from tests.attacks.problems import cost
from tests.conftest import DRAW, observe, precoded

TV = TotalVariation(weight=0.1)


def search(likelihood: Likelihood, **options: object) -> PosteriorSearch:
    parts: dict[str, object] = {"variables": Pixels(), "solver": Adam(steps=40)}
    return PosteriorSearch(likelihood=likelihood, **parts | options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("progress", "factor"), [(0, 0.01), (0.2, 0.1), (0.4, 1), (0.41, 1), (0.9, 1), (1, 1)])
def test_annealing_grows_geometrically_to_one(progress: float, factor: float) -> None:
    assert Annealing(first=0.01, until=0.4)(progress) == pytest.approx(factor)


def test_without_annealing_the_factor_is_one() -> None:
    assert [Annealing()(p) for p in (0, 0.3, 1)] == [1, 1, 1]


@pytest.mark.parametrize("option", [{"first": 0.0}, {"first": 1.5}, {"until": 0.0}, {"until": 1.1}])
def test_annealing_that_never_reaches_one_is_refused(option: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Annealing(**option)


def test_only_what_is_descended_is_annealed(seen: Observation, model: nn.Module) -> None:
    attack = search(L2(), priors=(TV, TV), annealing=Annealing(first=0.01, until=0.5))
    problem = Problem.of(seen, model, derive(0), "cpu")
    point = attack.variables.start(problem, 2, derive(1))
    guess = attack.variables.decode(point, problem)
    likelihood = cost(L2(), problem.gradients(guess), problem)
    prior = 2 * TV(guess.images, problem)
    for progress, factor in ((0.0, 0.01), (0.25, 0.1), (0.5, 1.0), (1.0, 1.0)):
        found = attack.objective(problem, derive(0))(point, progress)
        assert torch.allclose(found.score, likelihood + prior)
        assert torch.allclose(found.descended, factor * likelihood + prior)


def test_the_loss_is_the_untempered_objective_of_the_answer(seen: Observation, model: nn.Module) -> None:
    attack = search(L2(), priors=(TV,), annealing=Annealing(first=0.01))
    found = attack(seen, model, derive(0))
    problem = Problem.of(seen, model, derive(0), "cpu")
    images = found.images[None]
    guess = Guess(images, found.labels[None])
    expected = cost(L2(), problem.gradients(guess), problem) + TV(images, problem)
    assert found.loss == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("likelihood", [L2(), L1(), DefenseDensity()], ids=["l2", "l1", "density"])
def test_without_the_protocol_a_weight_change_needs_a_cosine(
    model: nn.Module, batch: Batch, likelihood: Likelihood
) -> None:
    seen = replace(observe(model, batch, Protocol(mode="fedavg")), protocol=None)
    with pytest.raises(UnmetKnowledgeError, match=r"grant protocol in \[adversary\], or use a cosine attack"):
        search(likelihood)(seen, model, derive(0))
    found = search(Cosine())(seen, model, derive(0))
    assert found.loss < 0.1
    assert torch.equal(found.labels, batch.labels)


def test_of_several_starts_the_best_is_kept(seen: Observation, model: nn.Module) -> None:
    """The first of three starts is the single one, so more starts are never worse; here they are better."""
    problem = Problem.of(seen, model, derive(0), "cpu")
    assert torch.equal(
        Pixels().start(problem, 3, derive(0))["pixels"][:1], Pixels().start(problem, 1, derive(0))["pixels"]
    )
    one, three = (search(Cosine(), restarts=r)(seen, model, derive(0)) for r in (1, 3))
    assert three.loss < one.loss


def test_a_search_begins_where_its_first_ends_trial_by_trial(seen: Observation, model: nn.Module) -> None:
    """A second search that hardly moves answers with the best of the first one's ends, by its own objective."""
    first, still, rng = search(Cosine()), Adam(steps=1, step_size=1e-9), derive(0)
    problem = Problem.of(seen, model, rng, "cpu")
    starts = Pixels().start(problem, 2, rng)["pixels"]
    ends = [first._solve([problem], [], {"pixels": start}, 1)[0] for start in starts[:, None]]
    scores = [search(L2()).objective(problem, derive(0))(end.point, 1.0).score.item() for end in ends]
    found = search(L2(), solver=still, first=first, restarts=2)(seen, model, derive(0))
    best = ends[scores.index(min(scores))]
    assert found.loss == pytest.approx(min(scores), rel=1e-4)
    assert torch.allclose(found.images, Pixels().answer(best.point, problem).images[0].clamp(0, 1), atol=1e-5)
    assert found.budget.iterations == 40 + 1


def test_a_first_search_of_other_variables_is_refused() -> None:
    with pytest.raises(ConfigError, match="the same variables"):
        search(L2(), first=search(Cosine(), variables=Pixels(labels="joint")))


@pytest.mark.parametrize("name", ["bayes", "dlg", "inverting_gradients"])
def test_an_attack_out_of_time_still_answers(name: str, seen: Observation, model: nn.Module) -> None:
    known = Knowledge(defense_level=DefenseKnowledge.PARAMETERS, defenses=())
    found = ATTACKS[name](seconds=1e-9, restarts=2)(replace(seen, knowledge=known), model, derive(0))
    assert found.outcome is Outcome.OUT_OF_TIME
    assert found.budget.iterations <= 2
    assert -4 < found.loss < torch.inf
    assert found.labels.shape == (1,)


def test_granted_labels_are_answered_even_by_a_search_for_labels(seen: Observation, model: nn.Module) -> None:
    granted = replace(seen, knowledge=Knowledge(labels=torch.tensor([9])))
    assert ATTACKS["dlg"](steps=5)(granted, model, derive(0)).labels.tolist() == [9]


@pytest.mark.parametrize("labels", ["given", "joint"])
@pytest.mark.parametrize("solver", [Adam(steps=200), LBFGS(steps=30)], ids=["adam", "lbfgs"])
def test_without_a_likelihood_the_prior_is_all(
    seen: Observation, model: nn.Module, solver: Solver, labels: Literal["given", "joint"]
) -> None:
    """Whatever was observed, and whatever else is searched."""
    smooth = TotalVariation(weight=1.0, power=2)
    attack = search(Nothing(), priors=(smooth,), variables=Pixels(labels=labels, box=False), solver=solver, restarts=2)
    nonsense = replace(seen, update=replace(seen.update, delta={k: t * 1e6 for k, t in seen.update.delta.items()}))
    for what in (seen, nonsense):
        found = attack(what, model, derive(0))
        assert found.loss < 0.01
        assert found.images.std() < 0.05


def test_a_model_that_draws_is_charged_for_what_is_supposed_to_be_drawn(batch: Batch) -> None:
    """Half its square, beside the likelihood of the gradient that follows from it."""
    net = precoded(16, 4)
    problem = Problem.of(observe(net, batch), net, derive(0), "cpu")
    attack = search(L2(), variables=Pixels(noise="joint"), annealing=Annealing(first=0.1))
    point = attack.variables.start(problem, 3, derive(1))
    found, drawn = attack.objective(problem, derive(0))(point, 0.0), point[DRAW]
    plain = cost(L2(), problem.gradients(attack.variables.decode(point, problem)), problem)
    charged = torch.tensor([sum(z**2 for z in drawn[trial].flatten().tolist()) / 2 for trial in range(3)])
    assert torch.allclose(found.score, plain + charged)
    assert torch.allclose(found.descended, 0.1 * plain + charged)
