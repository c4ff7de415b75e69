"""The ball: its sampler against the uniform law, its objective against loops and against posteriors in closed form."""

import math
from dataclasses import replace
from itertools import product
from typing import Literal, TypeAlias

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from attacks.ball import DeltaBall, uniform_in_ball
from attacks.likelihoods import L2, DefenseDensity, Nothing
from attacks.objective import Annealing
from attacks.posterior import PosteriorSearch
from attacks.priors import Prior, TotalVariation
from attacks.problem import Guess, Problem
from attacks.solvers import LBFGS, Adam
from attacks.variables import Pixels
from fl_sim.core.part import part
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Task
from tests.attacks import zero
from tests.attacks.problems import made_up
from tests.conftest import TASK, observe

Form: TypeAlias = Literal["jensen", "exact"]
FORMS = pytest.mark.parametrize("form", ["jensen", "exact"])
STD, SPREAD, CENTRE = 0.05, 0.1, 0.4  # of the noise; of a Gaussian prior on normalised pixels, and its mean


@part
class Normal(Prior):
    """N(CENTRE, SPREAD^2) per normalised pixel."""

    def __call__(self, images: Tensor, problem: Problem) -> Tensor:
        normalised = (images - problem.mean) / problem.std
        return ((normalised - CENTRE) / SPREAD).square().flatten(1).sum(1) / 2


@pytest.mark.parametrize("dim", [1, 2, 8])
def test_points_are_uniform_in_the_ball(dim: int) -> None:
    """K7: in d = 8 a mean square of 0.8 delta^2; a uniform radius would give a third."""
    points = uniform_in_ball(20_000, dim, 2.0, derive(0)).double()
    lengths = points.norm(dim=1)
    assert lengths.max() <= 2.0 * (1 + 1e-6)
    assert lengths.square().mean().item() == pytest.approx(4 * dim / (dim + 2), rel=0.02)
    assert stats.kstest((lengths / 2).numpy(), lambda r: r**dim).pvalue > 0.001  # the volume inside
    covariance = points.T @ points / len(points)
    assert (covariance - torch.eye(dim) * 4 / (dim + 2)).abs().max() < 4 * 4 / math.sqrt(20_000)
    assert points.mean(0).abs().max() < 4 * 2 / math.sqrt(20_000)


def test_offsets_come_in_opposite_pairs_one_ball_an_image_in_normalised_units() -> None:
    colour = Task(image_shape=(3, 4, 4), classes=10, mean=(0.5, 0.5, 0.5), std=(0.1, 0.2, 0.4))
    problem = made_up({"w": torch.zeros(1)}, images=2)
    problem = replace(problem, seen=replace(problem.seen, task=colour))
    offsets = DeltaBall(delta=1.5, pairs=500).offsets(problem, derive(0))
    assert offsets.shape == (1000, 2, 3, 4, 4)
    assert torch.equal(offsets[:500], -offsets[500:])
    normalised = offsets / torch.tensor(colour.std).view(3, 1, 1)
    lengths = normalised.flatten(2).norm(dim=2)
    assert lengths.max() <= 1.5 * (1 + 1e-6)
    assert lengths.square().mean().item() == pytest.approx(1.5**2 * 48 / 50, rel=0.01)
    per_channel = normalised.flatten(3).square().mean((0, 1, 3))
    assert (per_channel / per_channel.mean() - 1).abs().max() < 0.02
    first, second = normalised[:500].flatten(2).unbind(1)
    assert abs((first * second).sum(1).mean().item()) < 4 * 1.5**2 / math.sqrt(500 * 48)


def test_around_a_guess_are_its_neighbours_one_trial_after_the_other() -> None:
    images, labels = torch.rand(3, 2, 1, 8, 8, generator=derive(0)), torch.arange(6).view(3, 2)
    drawn = {"draw": torch.randn(3, 2, 4, generator=derive(1))}
    ball = DeltaBall(delta=1.0, pairs=2)
    offsets = ball.offsets(made_up({"w": torch.zeros(1)}, images=2), derive(2))
    near = ball.around(Guess(images, labels, drawn), offsets[None])
    assert near.images.shape == (12, 2, 1, 8, 8)
    for row, (trial, place) in enumerate(product(range(3), range(4))):
        assert torch.equal(near.images[row], images[trial] + offsets[place])
        assert torch.equal(near.labels[row], labels[trial])
        assert torch.equal(near.noise["draw"][row], drawn["draw"][trial])


@FORMS
def test_costs_are_gathered_as_a_loop_does(form: Form) -> None:
    costs = torch.randn(12, generator=derive(0)).double()
    found = DeltaBall(delta=1.0, pairs=2, form=form).gathered(costs)
    for trial in range(3):
        own = costs[4 * trial : 4 * trial + 4].tolist()
        exact = -math.log(sum(math.exp(-c) for c in own) / 4)
        assert found[trial].item() == pytest.approx(exact if form == "exact" else sum(own) / 4)


def test_the_exact_form_survives_costs_whose_probabilities_do_not() -> None:
    costs = torch.tensor([5000.0, 5001.0, 9000.0, 5000.5], dtype=torch.float64)
    found = DeltaBall(delta=1.0, pairs=2, form="exact").gathered(costs).item()
    assert found == pytest.approx(5000 - math.log((1 + math.exp(-1) + math.exp(-0.5)) / 4))


@pytest.mark.parametrize(
    ("form", "delta", "best"), [("exact", 0.3, 0), ("exact", 0.36, 3), ("jensen", 0.04, 0), ("jensen", 0.05, 3)]
)
def test_a_narrow_peak_loses_to_a_broad_hill_where_it_should(form: Form, delta: float, best: float) -> None:
    """K7: the posterior 0.2 N(0, 0.01^2) + 0.8 N(3, 1); the density alone is always largest at 0."""
    ball = DeltaBall(delta=delta, pairs=40_000, form=form)
    half = uniform_in_ball(40_000, 1, delta, derive(0)).double()
    offsets, centres = torch.cat([half, -half]).view(1, -1, 1, 1), torch.tensor([0.0, 3.0]).double().view(2, 1)
    near = ball.around(Guess(centres[:, None], torch.zeros(2, 1)), offsets).images.flatten().numpy()
    density = 0.2 * stats.norm.pdf(near, 0, 0.01) + 0.8 * stats.norm.pdf(near, 3, 1)
    costs = ball.gathered(-torch.tensor(density).log())
    assert centres[costs.argmin()].item() == best


@pytest.mark.parametrize(("form", "delta"), [("jensen", 0.05), ("jensen", 3.0), ("exact", 0.03)])
def test_the_best_ball_of_a_gaussian_posterior_is_around_its_mode(form: Form, delta: float) -> None:
    """K1: the same answer for every delta, in closed form.

    Exactly so with few draws only where they are shorter than the posterior is broad (0.047): it is a sum of bumps.
    """
    seen = zero.noisy(STD)
    sharpness = zero.residual().square().sum() / STD**2
    mode = (sharpness * zero.least_squares(seen) + CENTRE / SPREAD**2) / (sharpness + 1 / SPREAD**2)
    assert (mode - zero.least_squares(seen)).abs().max() > 0.05  # the prior does something
    search = PosteriorSearch(
        likelihood=DefenseDensity(),
        priors=(Normal(),),
        variables=Pixels(box=False, init="mean"),
        solver=LBFGS(steps=40),
        ball=DeltaBall(delta=delta, pairs=3, form=form),
    )
    found = search(seen, zero.net(), derive(0)).images[0]
    assert (found - zero.pixels(mode)).abs().max() < 1e-3


@FORMS
def test_the_objective_is_that_of_a_loop_over_trials_and_draws(form: Form, model: nn.Module) -> None:
    """With two images of different labels in three trials: nothing changes places."""
    batch = Batch(torch.rand(2, *TASK.image_shape, generator=derive(5)), torch.tensor([2, 7]))
    problem = Problem.of(observe(model, batch), model, derive(0), "cpu")
    plain = PosteriorSearch(
        likelihood=L2(),
        priors=(TotalVariation(weight=0.1),),
        variables=Pixels(),
        solver=Adam(steps=1),
        annealing=Annealing(first=0.1),
    )
    ball = DeltaBall(delta=2.0, pairs=2, form=form)
    point = Pixels().start(problem, 3, derive(1))
    found = replace(plain, ball=ball).objective(problem, derive(9))(point, 0.0)
    offsets, alone = ball.offsets(problem, derive(9)), plain.objective(problem, derive(9))
    for trial in range(3):
        moved = [{"pixels": (point["pixels"][trial] + u / problem.std)[None]} for u in offsets]
        costs = [alone(m, 0.0) for m in moved]
        for field in ("descended", "score"):
            own = torch.stack([getattr(c, field) for c in costs]).double().squeeze(1)
            expected = own.mean() if form == "jensen" else -(-own).exp().mean().log()
            assert getattr(found, field)[trial].item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_draws_are_made_once_a_search_and_are_a_function_of_its_generator(model: nn.Module) -> None:
    problem = made_up({"w": torch.zeros(1)})
    search = PosteriorSearch(
        likelihood=Nothing(),
        priors=(Normal(),),
        variables=Pixels(),
        solver=Adam(steps=1),
        ball=DeltaBall(delta=1.0),
    )
    point = Pixels().start(problem, 1, derive(0))
    first, other = search.objective(problem, derive(1)), search.objective(problem, derive(2))
    assert first(point, 0.0).score.item() == first(point, 0.5).score.item()
    assert first(point, 0.0).score.item() != other(point, 0.0).score.item()
    assert first(point, 0.0).score.item() == search.objective(problem, derive(1))(point, 0.0).score.item()
