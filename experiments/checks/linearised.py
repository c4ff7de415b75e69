"""K13 and K15: the error and the residual that the linearised posterior promises, and what searches reach."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev

from attacks.likelihoods import DefenseDensity
from attacks.posterior import PosteriorSearch
from attacks.priors import GaussianPixels
from attacks.problem import Guess, Problem
from attacks.solvers import LBFGS
from attacks.variables import Pixels
from experiments.checks.answer import Answer, near
from experiments.checks.world import TASK, made, normalised, pixels, problem_of, random_batch
from fl_sim.core.contracts import Defense
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat, subtract
from fl_sim.core.types import Batch

_PRIOR_STD, _SMALL_NOISE = 1.0, 2e-3


def residual_is_as_promised() -> Answer:
    """K13: a converged search leaves ``|g - g(x)|^2 / s^2 = k - d_eff``, standard deviation ``sqrt(2k)``."""
    left, expected, k = [], [], 0
    for place in range(12):
        _, batch, problem = problem_of("mlp", [made("gaussian", std=_SMALL_NOISE)], random_batch(1, place), place)
        jacobian, found = _jacobian(problem, batch), _converged(problem, batch.images)
        gradients = problem.gradients(Guess(TASK.mean[0] + TASK.std[0] * found, batch.labels[None]))
        left.append(flat(subtract(problem.target, {n: t[0] for n, t in gradients.items()})).square().sum().detach())
        fitted = torch.linalg.solve(_precision(jacobian), jacobian.T @ jacobian / _SMALL_NOISE**2).trace()
        k = len(jacobian)
        expected.append(k - fitted)
    over = (sum(left) / _SMALL_NOISE**2 - sum(expected)) / math.sqrt(2 * k * len(left))
    return near(float(over), 0.0, 4.0, "residual minus (k - d_eff), in deviations sqrt(2k), 12 images, mlp")


def error_is_as_promised() -> Answer:
    """K15: from the truth a search settles at the linearised posterior: ``MSE = tr (J^T J / s^2 + 1/t^2)^-1 / d``."""
    return _settled([made("gaussian", std=_SMALL_NOISE)], None)


def error_is_as_promised_under_pruning() -> Answer:
    """K15: with a known mask M, ``J^T M J`` stands for ``J^T J``."""
    pruning = made("random_prune", rate=0.5)
    return _settled([pruning, made("gaussian", std=_SMALL_NOISE)], pruning)


def cold_start_is_no_better() -> Answer:
    """K15: a search that starts beside the truth, by 3 % of another image, ends no nearer than is promised."""
    promised, found = [], []
    for place in range(12):
        _, batch, problem = problem_of("mlp", [made("gaussian", std=_SMALL_NOISE)], random_batch(1, place), place)
        promised.append(_precision(_jacobian(problem, batch)).inverse().trace() / 64)
        beside = 0.97 * batch.images + 0.03 * random_batch(1, 100 + place).images
        found.append((_converged(problem, beside) - normalised(batch.images)).square().mean())
    return near(float(sum(found) / sum(promised)), 1.0, 0.25, "mean error over promised, 12 images, mlp")


def _settled(stack: Sequence[Defense], pruning: Defense | None) -> Answer:
    promised, found = [], []
    for place in range(24):
        _, batch, problem = problem_of("mlp", stack, random_batch(1, place), place)
        jacobian = _jacobian(problem, batch)
        if pruning is not None:
            jacobian = (
                jacobian * torch.cat([m.reshape(-1) for m in problem.seen.knowledge.randomness.values()])[:, None]
            )
        promised.append(_precision(jacobian).inverse().trace() / 64)
        found.append((_converged(problem, batch.images) - normalised(batch.images)).square().mean())
    return near(float(sum(found) / sum(promised)), 1.0, 0.2, "mean error over promised, 24 images, mlp")


def _precision(jacobian: Tensor) -> Tensor:
    """Of the linearised posterior, ``(64, 64)``."""
    return jacobian.T @ jacobian / _SMALL_NOISE**2 + torch.eye(64) / _PRIOR_STD**2


def _converged(problem: Problem, start: Tensor) -> Tensor:
    """Normalised pixels ``(1, 1, 1, 8, 8)`` where a search settles that starts at images ``start``."""
    attack = PosteriorSearch(
        likelihood=DefenseDensity(),
        priors=(GaussianPixels(std=_PRIOR_STD),),
        variables=Pixels(box=False),
        solver=LBFGS(steps=40),
    )
    first = {"pixels": normalised(start)[None]}
    return attack.solver.solve(attack.objective(problem, derive(0)), first, dict).point["pixels"].detach()


def _jacobian(problem: Problem, batch: Batch) -> Tensor:
    """Of the flat gradient in the normalised image, ``(k, 64)``; by torch.func, not by the attacks' own passes.

    Second derivatives do not mind the order: the slope in the image has 64 entries, the gradient has thousands.
    """

    def slope(weights: dict[str, Tensor]) -> Tensor:
        def loss(vector: Tensor) -> Tensor:
            return nn.functional.cross_entropy(functional_call(problem.model, weights, (pixels(vector),)), batch.labels)

        found: Tensor = grad(loss)(normalised(batch.images).flatten())
        return found

    rows = jacrev(slope)(dict(problem.seen.broadcast))
    return torch.cat([t.reshape(64, -1) for t in rows.values()], 1).T


CHECKS: Mapping[str, Callable[[], Answer]] = MappingProxyType(
    {
        "K13 residual": residual_is_as_promised,
        "K15 noise": error_is_as_promised,
        "K15 pruning": error_is_as_promised_under_pruning,
        "K15 cold start": cold_start_is_no_better,
    }
)
