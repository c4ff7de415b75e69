"""K13 to K15: likelihoods as densities, and the error they promise."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor

from attacks.likelihoods import L1, L2, DefenseDensity, Likelihood
from attacks.posterior import PosteriorSearch
from attacks.priors import GaussianPixels
from attacks.problem import Guess, Problem
from attacks.solvers import LBFGS
from attacks.variables import Pixels
from defenses.dpsgd import DpSgd
from experiments.checks.answer import Answer, near
from experiments.checks.world import TASK, defended, made, network, normalised, random_batch, watched
from fl_sim.core.contracts import Defense
from fl_sim.core.density import Interval
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat, size, subtract
from fl_sim.core.types import Batch, Observation, Task
from fl_sim.training.local import State, gradient, state_of

_MNIST = Task(image_shape=(1, 28, 28), classes=10, mean=(0.1307,), std=(0.3081,))
_PRIOR_STD, _SMALL_NOISE = 1.0, 2e-3


def gaussian_is_calibrated() -> Answer:
    """K13: at the truth, ``E log p = -(k/2)(ln 2 pi s^2 + 1)``, standard deviation ``sqrt(k/2)``."""
    found, k = _log_likelihood([made("gaussian", std=0.1)])
    expected = -(k / 2) * (math.log(2 * math.pi * 0.1**2) + 1)
    return near(found, expected, 4 * math.sqrt(k / 2), "-(k/2)(ln 2 pi s^2 + 1), cnn on MNIST, 4 deviations")


def laplace_is_calibrated() -> Answer:
    """K13: at the truth, ``E log p = -k (ln 2b + 1)``, standard deviation ``sqrt(k)``."""
    found, k = _log_likelihood([made("laplace", scale=0.1)])
    return near(found, -k * (math.log(0.2) + 1), 4 * math.sqrt(k), "-k(ln 2b + 1), cnn on MNIST, 4 deviations")


def averaged_noise_is_calibrated() -> Answer:
    """K13: per-example noise, averaged over 4 images, has half the std: ``E log p`` says so."""
    found, k = _log_likelihood([made("gaussian", std=0.1, averaging="per_example")], images=4)
    expected = -(k / 2) * (math.log(2 * math.pi * 0.05**2) + 1)
    return near(found, expected, 4 * math.sqrt(k / 2), "-(k/2)(ln 2 pi s^2/B + 1), B = 4, 4 deviations")


def mask_is_used() -> Answer:
    """K13: with a known mask, pruned entries are noise alone; ignoring the mask at the truth costs likelihood."""
    found, k = _log_likelihood([made("random_prune", rate=0.5), made("gaussian", std=0.01)])
    expected = -(k / 2) * (math.log(2 * math.pi * 0.01**2) + 1)
    return near(found, expected, 4 * math.sqrt(k / 2), "-(k/2)(ln 2 pi s^2 + 1) with half the entries pruned")


def dpsgd_is_calibrated() -> Answer:
    """K13: DP-SGD over 4 images, multiplier 2, clip 0.5: noise of std 0.25 around the mean of clipped gradients."""
    model, batch = network("mlp", widths=(32,)).eval(), random_batch(4)
    defense, clean = DpSgd(clip=0.5, noise_multiplier=2.0), watched(network("mlp", widths=(32,)), batch)
    sent = defense.gradient(model, *state_of(model), batch, derive(0, "dpsgd"))
    told = replace(defended(clean, []), update=replace(clean.update, delta=sent))
    seen = replace(told, knowledge=replace(told.knowledge, defenses=(defense,)))
    problem = Problem.of(seen, model, derive(0), "cpu")
    cost = DefenseDensity().bind(problem).cost(problem.example_gradients(Guess(batch.images[None], batch.labels[None])))
    k = size(sent)
    expected = -(k / 2) * (math.log(2 * math.pi * 0.25**2) + 1)
    return near(-cost.item(), expected, 4 * math.sqrt(k / 2), "-(k/2)(ln 2 pi (m S / B)^2 + 1), B = 4, 4 deviations")


def cells_are_calibrated() -> Answer:
    """K13: behind 8-bit rounding a density becomes the mass of a cell, so the logs of the cells' widths are added."""
    stack = [made("gaussian", std=0.1), made("quantize")]
    found, k = _log_likelihood(stack)
    sent = defended(watched(network("cnn", _MNIST), random_batch(1, task=_MNIST), _MNIST), stack).update.delta
    widths = sum(t.numel() * math.log(t.abs().max().item() / 127) for t in sent.values())
    expected = -(k / 2) * (math.log(2 * math.pi * 0.1**2) + 1) + widths
    return near(found, expected, 4 * math.sqrt(k / 2), "-(k/2)(ln 2 pi s^2 + 1) + sum of log widths, 4 deviations")


def pruned_entries_are_bounded() -> Answer:
    """K13: what top-k did not send lies below what it sent: at the truth every zero is inside its bounds."""
    clean = watched(network("cnn", _MNIST), random_batch(1, task=_MNIST), _MNIST)
    defense = made("topk", keep=0.1)
    sent = defended(clean, [defense]).update.delta
    bounds = defense.bounds(Interval(sent, sent))
    assert bounds is not None
    inside = [(bounds.low[k] <= t) & (t <= bounds.high[k]) for k, t in clean.update.delta.items()]
    tight = max(t.max().item() for t in bounds.high.values()) <= max(t.max().item() for t in sent.values())
    share = sum(int(i.sum()) for i in inside) / size(sent)
    return near(share if tight else math.nan, 1.0, 0.0, "share of true entries inside, no bound beyond the largest")


def gaussian_is_l2() -> Answer:
    """K14: ``-log p`` of Gaussian noise and ``L2 / (2 s^2)`` have one gradient."""
    return near(_disagreement("gaussian", "std", L2(), 1 / (2 * 0.1**2)), 0.0, 1e-4, "relative difference of gradients")


def laplace_is_l1() -> Answer:
    """K14: so have ``-log p`` of Laplace noise and ``L1 / b``."""
    return near(_disagreement("laplace", "scale", L1(), 1 / 0.1), 0.0, 1e-4, "relative difference of gradients")


def error_is_as_promised() -> Answer:
    """K15: from the truth a search settles at the linearised posterior: ``MSE = tr (J^T J / s^2 + 1/t^2)^-1 / d``."""
    return _settled([made("gaussian", std=_SMALL_NOISE)], None)


def error_is_as_promised_under_pruning() -> Answer:
    """K15: with a known mask M, ``J^T M J`` stands for ``J^T J``."""
    pruning = made("random_prune", rate=0.5)
    return _settled([pruning, made("gaussian", std=_SMALL_NOISE)], pruning)


def residual_is_as_promised() -> Answer:
    """K13: a converged search leaves ``|g - g(x)|^2 / s^2 = k - d_eff``, standard deviation ``sqrt(2k)``."""
    left, expected, k = [], [], 0
    for place in range(12):
        _, batch, problem = _problem("mlp", [made("gaussian", std=_SMALL_NOISE)], random_batch(1, place), place)
        jacobian, found = _jacobian(problem, batch), _converged(problem, batch)
        gradients = problem.gradients(Guess(TASK.mean[0] + TASK.std[0] * found, batch.labels[None]))
        left.append(flat(subtract(problem.target, {n: t[0] for n, t in gradients.items()})).square().sum().detach())
        fitted = torch.linalg.solve(_precision(jacobian), jacobian.T @ jacobian / _SMALL_NOISE**2).trace()
        k = len(jacobian)
        expected.append(k - fitted)
    over = (sum(left) / _SMALL_NOISE**2 - sum(expected)) / math.sqrt(2 * k * len(left))
    return near(float(over), 0.0, 4.0, "residual minus (k - d_eff), in deviations sqrt(2k), 12 images, mlp")


def _precision(jacobian: Tensor) -> Tensor:
    """Of the linearised posterior, ``(64, 64)``."""
    return jacobian.T @ jacobian / _SMALL_NOISE**2 + torch.eye(64) / _PRIOR_STD**2


def _converged(problem: Problem, batch: Batch) -> Tensor:
    """Normalised pixels ``(1, 1, 1, 8, 8)`` where a search settles that starts at the truth."""
    attack = PosteriorSearch(
        likelihood=DefenseDensity(),
        priors=(GaussianPixels(std=_PRIOR_STD),),
        variables=Pixels(box=False),
        solver=LBFGS(steps=40),
    )
    start = {"pixels": normalised(batch.images)[None]}
    return attack.solver.solve(attack.objective(problem, derive(0)), start, dict).point["pixels"].detach()


def _settled(stack: Sequence[Defense], pruning: Defense | None) -> Answer:
    promised, found = [], []
    for place in range(24):
        _, batch, problem = _problem("mlp", stack, random_batch(1, place), place)
        jacobian = _jacobian(problem, batch)
        if pruning is not None:
            jacobian = (
                jacobian * torch.cat([m.reshape(-1) for m in problem.seen.knowledge.randomness.values()])[:, None]
            )
        promised.append(_precision(jacobian).inverse().trace() / 64)
        found.append((_converged(problem, batch) - normalised(batch.images)).square().mean())
    return near(float(sum(found) / sum(promised)), 1.0, 0.2, "mean error over promised, 24 images, mlp")


def _jacobian(problem: Problem, batch: Batch) -> Tensor:
    """Of the flat gradient in the normalised image, ``(k, 64)``."""

    def of(vector: Tensor) -> Tensor:
        image = TASK.mean[0] + TASK.std[0] * vector.view(1, 1, *TASK.image_shape)
        tree = problem.gradients(Guess(image, batch.labels[None]))
        return torch.cat([t.reshape(-1) for t in tree.values()])

    found: Tensor = torch.autograd.functional.jacobian(of, normalised(batch.images).flatten())  # type: ignore[no-untyped-call]
    return found


def _log_likelihood(stack: Sequence[Defense], images: int = 1) -> tuple[float, int]:
    """Of what a defended client sends, at the truth; and the number of entries."""
    seen, batch, problem = _problem("cnn", stack, random_batch(images, task=_MNIST), 0, _MNIST)
    clean = gradient(problem.model, State(seen.broadcast, seen.buffers), batch).tree
    cost = DefenseDensity().bind(problem).cost({name: t[None] for name, t in clean.items()})
    return -cost.item(), size(seen.update.delta)


def _disagreement(name: str, parameter: str, distance: Likelihood, factor: float) -> float:
    """Of the two gradients in the image, at an image that is not the truth."""
    _, batch, problem = _problem("mlp", [made(name, **{parameter: 0.1})], random_batch(1), 0)
    sides = []
    for likelihood, scale in ((DefenseDensity(), 1.0), (distance, factor)):
        image = random_batch(1, 99).images[None].requires_grad_()
        cost = likelihood.bind(problem).cost(problem.gradients(Guess(image, batch.labels[None])))
        sides.append(torch.autograd.grad(scale * cost.sum(), image)[0])
    return float((sides[0] - sides[1]).norm() / sides[1].norm())


def _problem(
    model: str, stack: Sequence[Defense], batch: Batch, place: int, task: Task = TASK
) -> tuple[Observation, Batch, Problem]:
    net = network(model, task, **({"widths": (32,)} if model == "mlp" else {}))
    seen = defended(watched(net, batch, task), stack, place)
    return seen, batch, Problem.of(seen, net, derive(0), "cpu")


CHECKS: Mapping[str, Callable[[], Answer]] = MappingProxyType(
    {
        "K13 gaussian": gaussian_is_calibrated,
        "K13 laplace": laplace_is_calibrated,
        "K13 averaged noise": averaged_noise_is_calibrated,
        "K13 known mask": mask_is_used,
        "K13 dpsgd": dpsgd_is_calibrated,
        "K13 cells": cells_are_calibrated,
        "K13 top-k": pruned_entries_are_bounded,
        "K13 residual": residual_is_as_promised,
        "K14 gaussian is l2": gaussian_is_l2,
        "K14 laplace is l1": laplace_is_l1,
        "K15 noise": error_is_as_promised,
        "K15 pruning": error_is_as_promised_under_pruning,
    }
)
