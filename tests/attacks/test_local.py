from dataclasses import replace
from inspect import signature
from math import isfinite
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attacks import ATTACKS
from attacks.bayes import bayes, cosine
from attacks.classical import inverting_gradients
from attacks.generative import gifd
from attacks.local import LOCAL, Surrogate, Unrolled
from attacks.problem import Guess, Problem
from attacks.staged import StagedSearch
from attacks.variables import Between, Epochs, Pixels
from attacks.variables.between import SHARE
from attacks.variables.epochs import consensus
from attacks.variables.pixels import PIXELS
from fl_sim.core.errors import ConfigError, UnmetKnowledgeError
from fl_sim.core.knowledge import DefenseKnowledge, Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat
from fl_sim.core.types import Batch, Observation, Protocol
from fl_sim.metrics.image import psnr
from fl_sim.training.local import State, gradient
from tests.conftest import TASK, observe

FIVE = Protocol(mode="fedavg", learning_rate=0.3, local_epochs=5, batch_size=3)
ORDERED = Protocol(mode="fedavg", learning_rate=0.3, local_epochs=3, batch_size=2)


@pytest.fixture
def batch() -> Batch:
    return Batch(torch.rand(3, *TASK.image_shape, generator=derive(0, "image")), torch.tensor([2, 5, 7]))


def sent(model: nn.Module, batch: Batch, protocol: Protocol = FIVE) -> Observation:
    return replace(observe(model, batch, protocol), knowledge=Knowledge(labels=batch.labels))


def granted(seen: Observation) -> Observation:
    """That there is no defense."""
    return replace(seen, knowledge=replace(seen.knowledge, defense_level=DefenseKnowledge.PARAMETERS, defenses=()))


def problem_of(seen: Observation, model: nn.Module, local: str) -> Problem:
    return Problem.of(seen, model, derive(0), "cpu", LOCAL[local].passes)  # type: ignore[index]


def test_the_truth_makes_the_update_that_was_observed(model: nn.Module, batch: Batch) -> None:
    seen = sent(model, batch)
    guess = Guess(batch.images[None], batch.labels[None])
    problems = {name: problem_of(seen, model, name) for name in ("one_step", "unrolled")}
    apart = {
        n: (flat(p.gradients(guess)) - flat(p.targets)).norm() / flat(p.targets).norm() for n, p in problems.items()
    }
    assert apart["unrolled"] < 1e-5
    assert apart["one_step"] > 0.1


@pytest.mark.parametrize("protocol", [Protocol(batch_size=3), replace(FIVE, local_epochs=1)])
def test_one_step_is_one_step(protocol: Protocol, model: nn.Module, batch: Batch) -> None:
    seen = sent(model, batch, protocol)
    guess = Guess(torch.rand(2, 3, *TASK.image_shape), batch.labels.expand(2, -1))
    found = [flat(problem_of(seen, model, name).gradients(guess)) for name in ("one_step", "unrolled")]
    assert torch.equal(*found)


def found(seen: Observation, model: nn.Module, batch: Batch, **options: Any) -> float:
    """Mean PSNR; each image has a label of its own, so that they are in the truth's order."""
    attack = inverting_gradients(**{"steps": 80, "tv": 1e-4, "signed": False, "step_size": 0.3, **options})
    return psnr(attack(seen, model, derive(0)).images, batch.images).mean().item()


def test_unrolled_sees_what_one_step_does_not(model: nn.Module, batch: Batch) -> None:
    seen = sent(model, batch)
    assert found(seen, model, batch, local="unrolled") > found(seen, model, batch) + 5


@pytest.mark.parametrize("local", ["unrolled", "unrolled_epochs", "surrogate"])
def test_several_observations_together_are_as_alone(local: str, model: nn.Module, batch: Batch) -> None:
    seen = [sent(model, batch, ORDERED), sent(model, Batch(1 - batch.images, batch.labels), ORDERED)]
    attack = cosine(steps=6, restarts=2, local=local)  # type: ignore[arg-type]
    together = attack.batched(seen, model, [derive(1), derive(2)])
    alone = [attack(one, model, derive(i)) for i, one in enumerate(seen, 1)]
    for one, other in zip(together, alone, strict=True):
        assert torch.allclose(one.images, other.images, atol=1e-3)
        assert one.loss == pytest.approx(other.loss, abs=1e-4)


@pytest.mark.parametrize("local", LOCAL)
@pytest.mark.parametrize("name", sorted(n for n, preset in ATTACKS.items() if "local" in signature(preset).parameters))
def test_presets_take_every_model(name: str, local: str, model: nn.Module, batch: Batch) -> None:
    taken = signature(ATTACKS[name]).parameters
    small = {"steps": 2, "restarts": 2, "batchnorm": 0.0, "generator": "digits", "latent_steps": 2, "population": 4}
    options = {option: value for option, value in small.items() if option in taken}
    if local == "unrolled_epochs" and isinstance(ATTACKS[name](**options), StagedSearch):
        pytest.skip("a generator makes one set of images")
    attack = ATTACKS[name](**options, local=local)
    guess = attack(granted(sent(model, batch, ORDERED)), model, derive(0))
    assert isfinite(guess.loss)
    assert sorted(guess.labels.tolist()) == batch.labels.tolist()


@pytest.mark.parametrize("local", ["unrolled", "surrogate"])
def test_a_generator_goes_with_it(local: str, model: nn.Module, batch: Batch) -> None:
    seen = sent(model, batch)
    search = gifd(generator="digits", steps=2, stages=1, restarts=2)
    guess = gifd(generator="digits", steps=2, stages=1, restarts=2, local=local)(seen, model, derive(0))  # type: ignore[arg-type]
    other = search(seen, model, derive(0))
    assert isfinite(guess.loss)
    assert guess.loss != other.loss
    with pytest.raises(ConfigError, match="one set of images"):
        gifd(generator="digits", local="unrolled_epochs")


@pytest.mark.parametrize("local", ["unrolled", "surrogate"])
def test_a_ball_goes_with_it(local: str, model: nn.Module, batch: Batch) -> None:
    attack = bayes(steps=2, delta=0.1, pairs=1, restarts=2, local=local)  # type: ignore[arg-type]
    assert isfinite(attack(granted(sent(model, batch)), model, derive(0)).loss)


class TestRefusals:
    @pytest.fixture
    def seen(self, model: nn.Module, batch: Batch) -> Observation:
        return sent(model, batch)

    def refused(self, local: str, seen: Observation, model: nn.Module, why: str) -> None:
        with pytest.raises(UnmetKnowledgeError, match=why):
            cosine(steps=1, local=local).check(seen, model)  # type: ignore[arg-type]

    def test_of_what_unrolled_cannot_run(self, seen: Observation, model: nn.Module) -> None:
        assert seen.protocol is not None
        self.refused("unrolled", replace(seen, protocol=None), model, "want the protocol")
        poisson = replace(seen.protocol, sampling="poisson")
        self.refused("unrolled", replace(seen, protocol=poisson), model, "Poisson")
        self.refused("unrolled_epochs", replace(seen, members=(0, 1)), model, "mean of 2 clients")
        for other in ("one_step", "surrogate"):
            cosine(steps=1, local=other).check(replace(seen, protocol=None), model)

    def test_of_a_surrogate_for_a_gradient(self, model: nn.Module, batch: Batch) -> None:
        self.refused("surrogate", sent(model, batch, Protocol(batch_size=3)), model, "is a gradient")

    def test_of_a_ball_around_epochs(self) -> None:
        with pytest.raises(ConfigError, match="one set of images"):
            bayes(delta=1.0, local="unrolled_epochs")


class TestBetween:
    @pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
    def test_the_gradient_is_taken_at_the_share(self, share: float, model: nn.Module, batch: Batch) -> None:
        seen = sent(model, batch)
        problem, variables = problem_of(seen, model, "surrogate"), Between(inner=Pixels(), first=share, pace=0.1)
        point = variables.start(problem, 2, derive(0))
        guess = variables.decode(point, problem)
        weights = {k: w + (1 - share) * seen.update.delta[k] for k, w in seen.broadcast.items()}
        expected = gradient(model, State(weights, {}), Batch(guess.images[1], batch.labels)).tree
        got = {k: g[1] for k, g in problem.gradients(guess).items()}
        assert torch.allclose(flat(got), flat(expected), atol=1e-6)

    def test_the_share_is_searched_and_stays_one(self, model: nn.Module, batch: Batch) -> None:
        problem = problem_of(sent(model, batch), model, "surrogate")
        variables = Surrogate().over(Pixels())
        point = {k: v.requires_grad_() for k, v in variables.start(problem, 1, derive(0)).items()}
        cost = flat(problem.gradients(variables.decode(point, problem))).square().sum()
        slopes = torch.autograd.grad(cost, list(point.values()))
        assert all(slope.abs().sum() > 0 for slope in slopes)
        for far in (-1e3, 1e3):
            shares = variables.project({**point, SHARE: torch.full((1, 1), far)}, problem)[SHARE]
            assert shares.item() * 0.05 == pytest.approx(float(far > 0))


class TestEpochs:
    def point(self, problem: Problem, images: Tensor) -> dict[str, Tensor]:
        """Of images ``(T, E, N, C, H, W)`` in [0, 1]."""
        return {PIXELS: (images - problem.mean) / problem.std}

    def test_only_what_differs_whatever_the_order_costs(self, model: nn.Module, batch: Batch) -> None:
        problem = problem_of(sent(model, batch, ORDERED), model, "unrolled_epochs")
        variables = Epochs(inner=Pixels(), tie=2.0)
        shuffled = torch.stack([batch.images, batch.images[[2, 0, 1]], batch.images.flip(0)])
        assert variables.surprise(self.point(problem, shuffled[None]), problem).item() == pytest.approx(0, abs=1e-8)
        moved = shuffled.clone()
        moved[2] += 0.3 * TASK.std[0]  # means differ by 0.3 in each of 64 pixels: -0.1, -0.1, 0.2 of their mean
        cost = variables.surprise(self.point(problem, moved[None]), problem)
        assert cost.item() == pytest.approx(2 * 64 * (0.01 + 0.01 + 0.04) / 3, rel=1e-4)

    def test_the_answer_is_the_mean_of_matched_images(self) -> None:
        images = torch.rand(3, 1, 4, 4, generator=derive(0))
        epochs = torch.stack([images, images[[1, 0, 2]], images])
        labels = torch.tensor([[4, 4, 1]] * 3)
        assert torch.allclose(consensus(epochs, labels), images)
        near = epochs + torch.tensor([0.0, 0.3, -0.3]).view(3, 1, 1, 1, 1)
        assert torch.allclose(consensus(near, labels), images, atol=1e-6)

    def test_classes_are_not_mixed(self) -> None:
        images = torch.rand(2, 1, 4, 4, generator=derive(0))
        both = torch.stack([images, images.flip(0)])
        assert torch.allclose(consensus(both, torch.tensor([[0, 1], [0, 1]])), images.mean(0).expand(2, -1, -1, -1))

    def test_one_epoch_where_order_cannot_matter(self, model: nn.Module, batch: Batch) -> None:
        problem = problem_of(sent(model, batch), model, "unrolled_epochs")
        variables = Unrolled(epochs="own").over(Pixels())
        guess = variables.decode(variables.start(problem, 2, derive(0)), problem)
        assert guess.images.shape == (2, 3, *TASK.image_shape)

    def test_searched_epochs_differ_and_end_as_one(self, model: nn.Module, batch: Batch) -> None:
        seen = sent(model, batch, ORDERED)
        problem, variables = problem_of(seen, model, "unrolled_epochs"), Epochs(inner=Pixels(), tie=1.0)
        guess = variables.decode(variables.start(problem, 2, derive(0)), problem)
        assert guess.images.shape == (2, 9, *TASK.image_shape)
        assert guess.labels.tolist() == [batch.labels.tolist() * 3] * 2
        assert not torch.equal(guess.images[0, :3], guess.images[0, 3:6])
        assert found(seen, model, batch, local="unrolled_epochs", steps=40) > 5
