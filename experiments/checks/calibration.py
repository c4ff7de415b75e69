"""K13 and K14: likelihoods as densities."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from attacks.likelihoods import L1, L2, DefenseDensity, Likelihood
from attacks.problem import Guess, Problem
from defenses.dpsgd import DpSgd
from experiments.checks.answer import Answer, near
from experiments.checks.world import defended, made, network, problem_of, random_batch, watched
from fl_sim.core.contracts import Defense
from fl_sim.core.density import Interval
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat, size
from fl_sim.core.types import Task
from fl_sim.training.local import State, gradient, state_of

_MNIST = Task(image_shape=(1, 28, 28), classes=10, mean=(0.1307,), std=(0.3081,))


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


def unknown_mask_is_calibrated() -> Answer:
    """K13: with an unknown mask, ``E log p`` of ``(1-q) N(g, s^2) + q N(0, s^2)``, q = 0.2, entry by entry."""
    rate, std = 0.2, 0.01
    stack = [made("random_prune", rate=rate, mask="fresh"), made("gaussian", std=std)]
    _, batch, problem = problem_of("mlp", stack, random_batch(1), 0)
    gradients = problem.gradients(Guess(batch.images[None], batch.labels[None]))
    found = -DefenseDensity(randomness="ignored").bind(problem).cost(gradients).item()
    mean, variance = _of_two_normals(flat(gradients).detach().double() / std, rate)
    k = size(problem.target)
    expected = mean - k * math.log(std)
    return near(found, expected, 4 * math.sqrt(variance), "sum of integrals of p log p, mlp, 4 deviations")


def _of_two_normals(apart: Tensor, rate: float) -> tuple[float, float]:
    """Mean and variance of ``sum log p`` of entries from ``(1-rate) N(apart, 1) + rate N(0, 1)``, by quadrature."""
    points, weights = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(120))
    chances, weights = torch.tensor([1 - rate, rate]), weights / weights.sum()
    centres = torch.stack([apart, torch.zeros_like(apart)], 1)  # (k, 2)
    at = centres[:, :, None] + points  # (k, 2, 120)
    terms = -0.5 * (at[..., None] - centres[:, None, None]).square() + chances.log() - 0.5 * math.log(2 * math.pi)
    log_p = torch.logsumexp(terms, -1)
    first, second = ((log_p**power @ weights) @ chances.double() for power in (1, 2))
    return first.sum().item(), (second - first.square()).sum().item()


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


def _log_likelihood(stack: Sequence[Defense], images: int = 1) -> tuple[float, int]:
    """Of what a defended client sends, at the truth; and the number of entries."""
    seen, batch, problem = problem_of("cnn", stack, random_batch(images, task=_MNIST), 0, _MNIST)
    clean = gradient(problem.model, State(seen.broadcast, seen.buffers), batch).tree
    cost = DefenseDensity().bind(problem).cost({name: t[None] for name, t in clean.items()})
    return -cost.item(), size(seen.update.delta)


def _disagreement(name: str, parameter: str, distance: Likelihood, factor: float) -> float:
    """Of the two gradients in the image, at an image that is not the truth."""
    _, batch, problem = problem_of("mlp", [made(name, **{parameter: 0.1})], random_batch(1), 0)
    sides = []
    for likelihood, scale in ((DefenseDensity(), 1.0), (distance, factor)):
        image = random_batch(1, 99).images[None].requires_grad_()
        cost = likelihood.bind(problem).cost(problem.gradients(Guess(image, batch.labels[None])))
        sides.append(torch.autograd.grad(scale * cost.sum(), image)[0])
    return float((sides[0] - sides[1]).norm() / sides[1].norm())


CHECKS: Mapping[str, Callable[[], Answer]] = MappingProxyType(
    {
        "K13 gaussian": gaussian_is_calibrated,
        "K13 laplace": laplace_is_calibrated,
        "K13 averaged noise": averaged_noise_is_calibrated,
        "K13 known mask": mask_is_used,
        "K13 unknown mask": unknown_mask_is_calibrated,
        "K13 dpsgd": dpsgd_is_calibrated,
        "K13 cells": cells_are_calibrated,
        "K13 top-k": pruned_entries_are_bounded,
        "K14 gaussian is l2": gaussian_is_l2,
        "K14 laplace is l1": laplace_is_l1,
    }
)
