"""Several rounds of one client, fitted together: the posterior given all of them."""

from dataclasses import replace

import pytest
import torch

from attacks import ATTACKS
from attacks.likelihoods import L2, DefenseDensity, Likelihood
from attacks.posterior import PosteriorSearch
from attacks.problem import Problem
from attacks.solvers import LBFGS, Adam
from attacks.variables import Pixels
from defenses.noise import Gaussian
from fl_sim import models
from fl_sim.core.errors import UnmetKnowledgeError
from fl_sim.core.knowledge import DefenseKnowledge, Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.trees import scale
from fl_sim.core.types import Batch, Observation, Protocol
from tests.attacks import zero
from tests.conftest import TASK, observe, precoded

STD = 0.1


def rounds(count: int, client: int = 0, *, trained: bool = True) -> Observation:
    """One image seen ``count`` times behind noise; the last round, with the earlier ones.

    The network is another one in each round, but for device Z, whose weights stay zero.
    """
    image = 0.3 + 0.4 * torch.rand(1, *TASK.image_shape, generator=derive(client, "image"))
    batch, noise = Batch(image, torch.tensor([zero.LABEL])), Gaussian(std=STD)
    known = Knowledge(labels=batch.labels, defense_level=DefenseKnowledge.PARAMETERS, defenses=(noise,))
    found: list[Observation] = []
    for number in range(1, count + 1):
        one = observe(models.build("mlp", TASK, number, widths=[16]) if trained else zero.net(), batch)
        update = noise.protect(one.update, derive(number, "noise", client)).update
        found.append(replace(one, round=number, client=client, update=update, knowledge=known))
    return replace(found[-1], earlier=tuple(found[:-1]))


def search(likelihood: Likelihood, steps: int = 8) -> PosteriorSearch:
    return PosteriorSearch(likelihood=likelihood, variables=Pixels(box=False), solver=Adam(steps=steps), restarts=2)


@pytest.mark.parametrize("likelihood", [L2(), DefenseDensity()], ids=["l2", "density"])
def test_the_likelihood_is_the_sum_of_the_rounds(likelihood: Likelihood) -> None:
    joint, attack = rounds(3), search(likelihood)
    model = models.build("mlp", TASK, 0, widths=[16])
    alone = [replace(one, earlier=()) for one in (joint, *joint.earlier)]
    problems = [Problem.of(one, model, derive(0), "cpu") for one in (joint, *alone)]
    point = attack.variables.start(problems[0], 2, derive(0))
    whole, *parts = (attack.objective(problem, derive(0))(point, 1.0).score for problem in problems)
    assert torch.allclose(whole, torch.stack(parts).sum(0))
    assert not torch.allclose(parts[0], parts[1])  # of different weights


def as_steps(joint: Observation, rate: float = 0.5) -> Observation:
    """The same rounds of a client that sends what one local step changed in the weights."""
    update = replace(joint.update, delta=scale(joint.update.delta, -rate), kind="delta")
    known = replace(joint.knowledge, defenses=(Gaussian(std=rate * STD),))
    protocol, earlier = Protocol(mode="fedavg", learning_rate=rate), tuple(map(as_steps, joint.earlier))
    return replace(joint, update=update, knowledge=known, protocol=protocol, earlier=earlier)


def test_rounds_of_single_steps_are_rounds_of_gradients() -> None:
    joint, attack = rounds(3), search(DefenseDensity())
    model = models.build("mlp", TASK, 0, widths=[16])
    problems = [Problem.of(one, model, derive(0), "cpu") for one in (joint, as_steps(joint))]
    point = attack.variables.start(problems[0], 2, derive(0))
    gradients, steps = (attack.objective(problem, derive(0))(point, 1.0).score for problem in problems)
    assert torch.allclose(gradients.diff(), steps.diff(), rtol=1e-4)
    attack.check(as_steps(joint), model)


def test_rounds_of_one_image_average_their_noise() -> None:
    """Device Z: least squares over m rounds is the mean of the rounds' least squares, its error std^2 / (m |r|^2)."""
    joint = rounds(4, trained=False)
    solver = LBFGS(steps=100, tolerance=-float("inf"))
    attack = PosteriorSearch(likelihood=DefenseDensity(), variables=Pixels(box=False), solver=solver)
    found = attack(joint, zero.net(), derive(0)).images[0]
    each = torch.stack([zero.pixels(zero.least_squares(one)) for one in (joint, *joint.earlier)])
    assert (found - each.mean(0)).abs().max() < 1e-4
    truth = 0.3 + 0.4 * torch.rand(TASK.image_shape, generator=derive(0, "image"))
    errors = [(guess - truth).square().mean() * 0.9 / (TASK.std[0] * STD) ** 2 for guess in (found, *each)]
    assert 4 * errors[0] == pytest.approx(1, abs=0.5)  # chi-squared of 64 degrees: std 0.18
    assert errors[0] < 0.5 * min(errors[1:])


def test_rounds_of_other_images_show_in_the_objective() -> None:
    """One image explains both rounds of one record, and not those of two: squared residuals per entry of the update."""
    same, other = rounds(2, trained=False), rounds(1, client=7, trained=False)
    solver = LBFGS(steps=100, tolerance=-float("inf"))
    attack = PosteriorSearch(likelihood=L2(), variables=Pixels(box=False), solver=solver)
    right, wrong = (
        attack(replace(same, earlier=(one,)), zero.net(), derive(0)).loss for one in (same.earlier[0], other)
    )
    assert wrong > right + 4  # about 6: |r|^2 times half the squared distance of the images, in normalised pixels


@pytest.mark.parametrize("name", ["bayes", "inverting_gradients"])
def test_clients_are_attacked_together_as_alone(name: str) -> None:
    model = models.build("mlp", TASK, 0, widths=[16])
    seen, attack = [rounds(2, client) for client in range(3)], ATTACKS[name](steps=10)
    alone = [attack(one, model, derive(one.client)) for one in seen]
    together = attack.batched(seen, model, [derive(one.client) for one in seen])
    for one, other in zip(alone, together, strict=True):
        assert torch.allclose(one.images, other.images, atol=1e-4)
    without = [attack(replace(one, earlier=()), model, derive(one.client)) for one in seen]
    assert all((a.images - b.images).abs().max() > 0.01 for a, b in zip(alone, without, strict=True))


def test_clients_with_unequal_histories_are_attacked_one_by_one() -> None:
    model, attack = models.build("mlp", TASK, 0, widths=[16]), ATTACKS["bayes"](steps=5)
    seen = [rounds(2, 0), replace(rounds(2, 1), earlier=())]
    found = attack.batched(seen, model, [derive(0), derive(1)])
    assert torch.equal(found[0].images, attack(seen[0], model, derive(0)).images)


@pytest.mark.parametrize("name", ["ratio", "rank", "r_gap"])
def test_exact_attacks_take_one_round(name: str) -> None:
    with pytest.raises(UnmetKnowledgeError, match="got those of 2 rounds"):
        ATTACKS[name]().check(rounds(2), models.build("mlp", TASK, 0, widths=[16]))


def test_what_is_not_one_clients_gradient_each_time_is_refused() -> None:
    joint, attack, model = rounds(2), ATTACKS["bayes"](), models.build("mlp", TASK, 0, widths=[16])
    several = replace(joint, members=(0, 1))
    change = replace(joint, update=replace(joint.update, kind="delta"), protocol=None)
    steps = replace(change, protocol=Protocol(mode="fedavg", local_epochs=2))
    samples = replace(change, protocol=Protocol(mode="fedavg", sampling="poisson"))
    for wrong in (several, change, steps, samples):
        with pytest.raises(UnmetKnowledgeError, match="gradients of one client in all rounds"):
            attack.check(wrong, model)
    with pytest.raises(UnmetKnowledgeError, match="draws"):
        attack.check(joint, precoded(16, 4))
