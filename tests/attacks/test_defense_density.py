"""The Bayes adversary's likelihood on whole problems: DP-SGD, units, aggregates, and whether it helps at all."""

import math
from dataclasses import replace
from re import sub

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Generator, Tensor, nn

from attacks.likelihoods import L2, DefenseDensity, informs
from attacks.posterior import PosteriorSearch
from attacks.problem import Problem
from attacks.solvers import Adam
from attacks.variables import Pixels
from defenses.clipping import Clip
from defenses.dpsgd import DpSgd
from defenses.noise import Gaussian, Laplace
from defenses.quantization import Quantize
from defenses.sparsification import RandomPrune, TopK
from fl_sim.core.contracts import AnyDefense, DataDefense, Defense, GradientDefense
from fl_sim.core.density import Choice, Interval, Normal, log_likelihood
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat, global_norm
from fl_sim.core.types import Batch, Observation, Protocol, Tensors, Update
from fl_sim.training.local import gradient, state_of
from tests.attacks.problems import cost, guess_of, made_up, problem_of
from tests.conftest import TASK, observe

CLIP, MULTIPLIER = 1.5, 0.2
LOUD, DP = Gaussian(std=0.1), DpSgd(clip=1.0, noise_multiplier=0.1)


def batch_of(images: int) -> Batch:
    return Batch(torch.rand(images, *TASK.image_shape, generator=derive(0, "batch")), torch.tensor([1, 5, 5][:images]))


def private(model: nn.Module, images: int, defense: DpSgd) -> Problem:
    batch, state = batch_of(images), state_of(model)
    tree = defense.gradient(model, state.weights, state.buffers, batch, derive(2))
    seen = observe(model, batch)
    known = replace(seen, update=replace(seen.update, delta=tree))
    return replace(problem_of(known, model, defense), labels=batch.labels)


def slowly(model: nn.Module, observed: Tensors, batch: Batch, images: Tensor) -> tuple[Tensor, list[float]]:
    """``-log p`` of one guess: each image's gradient clipped by hand; and the norms that were clipped."""
    clipped, norms = [], []
    for image, label in zip(images, batch.labels, strict=True):
        one = Batch(image[None], label[None])
        tree = gradient(model.eval(), state_of(model), one, create_graph=True).tree
        norms.append(global_norm(tree).item())
        clipped.append(flat(tree) * (CLIP / global_norm(tree)).clamp_max(1.0))
    residual = flat(observed) - torch.stack(clipped).mean(0)
    std = MULTIPLIER * CLIP / len(images)
    constant = len(residual) * math.log(2 * math.pi * std**2) / 2
    return residual.square().sum() / (2 * std**2) + constant, norms


@pytest.mark.parametrize("images", [1, 3])
def test_dpsgds_density_is_that_of_the_mean_of_clipped_gradients(model: nn.Module, images: int) -> None:
    """And so is where it pulls the pixels: through each example's own clip."""
    problem = private(model, images, DpSgd(clip=CLIP, noise_multiplier=MULTIPLIER))
    attack = PosteriorSearch(likelihood=DefenseDensity(), variables=Pixels(), solver=Adam(steps=1))
    point = {k: v.clone().requires_grad_() for k, v in Pixels(spread=0.5).start(problem, 2, derive(3)).items()}
    found = attack.objective(problem, derive(0))(point, 0.0).score
    (pull,) = torch.autograd.grad(found.sum(), point["pixels"])
    lengths: list[float] = []
    for trial in range(2):
        pixels = point["pixels"][trial].detach().clone().requires_grad_()
        decoded = TASK.mean[0] + TASK.std[0] * pixels
        expected, norms = slowly(model, problem.target, batch_of(images), decoded)
        assert found[trial].item() == pytest.approx(expected.item(), rel=1e-5)
        (slope,) = torch.autograd.grad(expected, pixels)
        assert (pull[trial] - slope).abs().max() < 1e-3 * slope.abs().max()
        lengths += norms
    assert max(lengths) > CLIP  # the clip was felt


def test_dpsgds_density_asks_for_single_gradients_others_for_their_mean() -> None:
    target = {"w": torch.ones(2)}
    for stack, of in (((DpSgd(clip=1.0, noise_multiplier=0.1),), "examples"), ((Gaussian(std=0.1),), "mean")):
        assert DefenseDensity().bind(made_up(target, *stack)).of == of


def test_clipped_examples_with_noise_on_the_update_and_bounds_after_noise_on_examples() -> None:
    examples = {"w": torch.randn(2, 3, 4, generator=derive(0)).double()}
    joined = DpSgd(clip=1.0, noise_multiplier=0).join(examples)["w"]
    observed = {"w": joined.mean(0) + 0.1 * torch.randn(4, generator=derive(1)).double()}
    stack: tuple[AnyDefense, ...] = (DpSgd(clip=1.0, noise_multiplier=0), Gaussian(std=0.1))
    expected = [-stats.norm.logpdf(observed["w"], j, 0.1).sum() for j in joined]
    assert cost(DefenseDensity(), examples, made_up(observed, *stack, images=3)).tolist() == pytest.approx(expected)
    stack = (DpSgd(clip=1.0, noise_multiplier=0.3), Quantize())
    most, of = observed["w"].abs().max(), stats.norm(scale=0.1)
    high, low = ((observed["w"] + side * most / 254).clamp(-most, most) for side in (1, -1))  # no cell goes beyond
    expected = [-sum(math.log(p) for p in of.cdf(high - j) - of.cdf(low - j)) for j in joined]
    found = cost(DefenseDensity(), examples, made_up(observed, *stack, images=3))
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


def test_what_was_drawn_is_used_by_the_defense_in_its_place() -> None:
    """Two masks one after the other, the second of them known: two choices are left of four."""
    examples = {"w": torch.randn(1, 3, 50, generator=derive(0)).double()}
    joined = DpSgd(clip=5.0, noise_multiplier=0).join(examples)["w"][0]
    stack = (DpSgd(clip=5.0, noise_multiplier=0), RandomPrune(rate=0.4, mask="fresh"), RandomPrune(rate=0.2), LOUD)
    update, drawn = Update(delta={"w": joined}, num_examples=3), dict[str, Tensor]()
    for place, defense in enumerate(stack[1:], 1):
        protected = defense.protect(update, derive(1, place))
        update = protected.update
        drawn |= {f"{place}/{k}": t for k, t in protected.randomness.items()}
    first, second, noise = drawn["1/mask/w"], drawn["2/mask/w"], stats.norm(scale=0.1)
    seen, unknown, known = update.delta["w"].numpy(), joined.numpy(), (joined * second).numpy()
    formulas = {
        ("1", "2"): noise.logpdf(seen - known * first.numpy()),
        ("2",): np.logaddexp(np.log(0.6) + noise.logpdf(seen - known), np.log(0.4) + noise.logpdf(seen)),
        (): np.logaddexp(np.log(0.48) + noise.logpdf(seen - unknown), np.log(0.52) + noise.logpdf(seen)),
    }
    for places, formula in formulas.items():
        granted = {name: mask for name, mask in drawn.items() if name[0] in places}
        problem = made_up(update.delta, *stack, drawn=granted, images=3)
        assert cost(DefenseDensity(), examples, problem).item() == pytest.approx(-formula.sum())


def test_the_density_is_that_of_the_units_that_were_sent(model: nn.Module, batch: Batch) -> None:
    sent = observe(model, batch, Protocol(mode="fedavg", learning_rate=0.2))
    problem = problem_of(sent, model, Gaussian(std=0.05))
    black = observe(model, Batch(torch.zeros(1, 1, 8, 8), batch.labels), sent.protocol).update.delta
    observed = Interval(sent.update.delta, sent.update.delta)
    expected = -log_likelihood(observed, [Choice(1.0, {k: t[None] for k, t in black.items()})], Normal(0.05))
    found = cost(DefenseDensity(), problem.gradients(guess_of(torch.zeros(1, 1, 1, 8, 8), problem)), problem)
    assert found.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("defense", [Gaussian(std=0.1), Clip(norm=0.5), TopK(keep=0.5), Quantize()], ids=repr)
def test_an_aggregate_is_not_taken_for_one_clients_update(defense: Defense) -> None:
    """The mean of several defended updates has another law: less noise, other zeros, no common scale."""
    clients = [Update(delta={"w": torch.randn(50, generator=derive(0, i))}, num_examples=1) for i in range(4)]
    protected = [defense.protect(c, derive(1, i)).update.delta["w"] for i, c in enumerate(clients)]
    observed, guess = {"w": torch.stack(protected).mean(0)}, {"w": torch.randn(1, 50, generator=derive(2))}
    together = made_up(observed, defense, images=4, members=(0, 1, 2, 3))
    undefended = cost(DefenseDensity(), guess, made_up(observed, images=4))
    assert cost(DefenseDensity(), guess, together).item() == pytest.approx(undefended.item())


def test_without_defenses_it_is_squared_error_over_twice_the_supposed_variance(
    seen: Observation, model: nn.Module
) -> None:
    problem = problem_of(seen, model)
    black = problem.gradients(guess_of(torch.rand(2, 1, 1, 8, 8, generator=derive(1)), problem))
    likelihoods = [cost(DefenseDensity(std=0.5), black, problem), cost(L2(), black, problem) / (2 * 0.5**2)]
    first, second = (c[0].item() - c[1].item() for c in likelihoods)
    assert first == pytest.approx(second, rel=1e-5)


class Transformed(DataDefense):
    def transform(self, batch: Batch, rng: Generator) -> Batch:
        return batch


class Own(GradientDefense):
    def gradient(self, model: nn.Module, weights: Tensors, buffers: Tensors, batch: Batch, rng: Generator) -> Tensors:
        return weights


INFORMS: list[tuple[tuple[AnyDefense, ...], bool]] = [
    ((), False),
    ((LOUD,), True),
    ((Laplace(scale=0.1),), True),
    ((Quantize(),), True),
    ((TopK(keep=0.1),), True),
    ((TopK(keep=0.1, scope="layer"), Quantize()), True),
    ((RandomPrune(rate=0.5),), True),
    ((Clip(norm=1.0),), True),
    ((Clip(norm=1.0), LOUD), True),
    ((RandomPrune(rate=0.5), LOUD, Quantize()), True),
    ((DP,), True),
    ((DP, TopK(keep=0.1)), True),
    ((DpSgd(clip=1.0, noise_multiplier=0),), True),
    ((LOUD, LOUD), True),
    ((LOUD, Laplace(scale=0.1)), False),
    ((LOUD, Clip(norm=1.0)), False),
    ((DP, LOUD), True),
    ((DP, Clip(norm=1.0)), False),
    ((Transformed(),), False),
    ((Own(), LOUD), False),
    ((Gaussian(std=0.0),), False),
    ((Laplace(scale=0.0),), False),
    ((RandomPrune(rate=0.0),), False),
    ((Gaussian(std=0.0), LOUD), True),
]


@pytest.mark.parametrize(("stack", "helps"), INFORMS, ids=lambda x: sub(r" object at \w+", "", repr(x))[:80])
def test_it_is_known_when_a_defense_tells_nothing(stack: tuple[AnyDefense, ...], helps: bool) -> None:
    assert informs(stack) is helps
