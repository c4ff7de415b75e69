"""Three ways to the derivative of a matching step, and how exact and fast each is.

With ``u`` the derivative of the distance in the gradients, held fixed, the step's derivative is that of ``<u, g(x)>``:
reverse-over-reverse takes it as it stands; forward-over-reverse as the directional derivative of the plain derivative
in the images along ``u``; a finite difference of two such plain derivatives saves two of seven passes. The last two
need ``u`` first: one more gradient, in weights and images.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp
from torch.nn.functional import cross_entropy

from attacks.gradients import Guess, Looped, Passes, dense, fastest
from benchmarks.case import case
from fl_sim.core import heap
from fl_sim.core.trees import add, global_norm, scale
from fl_sim.core.types import Batch, Tensors
from fl_sim.training.local import State, gradient, single_threaded

STEPS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # of a finite difference, in units of the weights' norm
REPEATS = 7


def measure() -> Iterator[tuple[str, dict[str, Any]]]:
    """On one image between noise and truth; errors are relative to reverse-over-reverse."""
    heap.keep_freed()
    with single_threaded():
        for name in ("cnn", "convnet", "resnet18", "lenet"):
            yield name, _compared(name)


def _compared(name: str) -> dict[str, Any]:
    seen, model, truth = case(name, 0)
    noise = torch.rand(truth.images.shape, generator=torch.Generator().manual_seed(0))
    images, state = 0.7 * truth.images + 0.3 * noise, State(seen.broadcast, seen.buffers)
    looped, ours = Looped(model, state), fastest(model, state, seen.task)

    def exact(passes: Passes) -> tuple[Tensor, Tensors]:
        inner = images[None].detach().requires_grad_()
        tree = dense(passes(Guess(inner, truth.labels[None])))
        cost = 1 - _cosine({k: g[0] for k, g in tree.items()}, seen.update.delta)
        slopes = torch.autograd.grad(cost, [*tree.values(), inner])
        return slopes[-1][0], {k: u[0] for k, u in zip(tree, slopes, strict=False)}

    reference, along = exact(looped)
    whole: dict[str, Callable[[], Tensor]] = {
        "reverse-over-reverse": lambda: exact(looped)[0],
        "reverse-over-reverse, layer by layer (fl-sim)": lambda: exact(ours)[0],
    }
    directional = _directional(_plain(model, seen.buffers, images, truth.labels), seen.broadcast, along)
    found = {way: _figures(derive, reference) for way, derive in (whole | directional).items()}
    direction = _milliseconds(lambda: _direction(model, state, Batch(images, truth.labels), seen.update.delta))
    for way in directional:
        found[way]["ms"] = round(found[way]["ms"] + direction, 2)
    return found


def _directional(
    plain: Callable[[Tensors], Tensor], weights: Tensors, along: Tensors
) -> dict[str, Callable[[], Tensor]]:
    """Ways to the derivative of ``plain`` along a direction in the weights."""
    size = (global_norm(weights) / global_norm(along)).item()
    found: dict[str, Callable[[], Tensor]] = {
        "forward-over-reverse": lambda: jvp(plain, (dict(weights),), (dict(along),))[1]
    }
    for step in STEPS:
        found[f"finite difference {step:g}"] = partial(_difference, plain, weights, along, step * size)
        found[f"centred difference {step:g}"] = partial(_centred, plain, weights, along, step * size)
    return found


def _direction(model: nn.Module, state: State, batch: Batch, target: Tensors) -> Sequence[Tensor]:
    """The derivative of the distance in the gradient, which the directional ways hold fixed."""
    tree = {name: g.detach().requires_grad_() for name, g in gradient(model, state, batch).tree.items()}
    return torch.autograd.grad(1 - _cosine(tree, target), list(tree.values()))


def _plain(model: nn.Module, buffers: Tensors, images: Tensor, labels: Tensor) -> Callable[[Tensors], Tensor]:
    """The derivative of the loss in the images, as a function of the weights."""

    def loss(images: Tensor, weights: Tensors) -> Tensor:
        logits: Tensor = functional_call(model, {**weights, **buffers}, (images,))
        return cross_entropy(logits, labels)

    return lambda weights: grad(loss)(images, weights)


def _difference(plain: Callable[[Tensors], Tensor], weights: Tensors, along: Tensors, step: float) -> Tensor:
    return (plain(add(weights, scale(along, step))) - plain(weights)) / step


def _centred(plain: Callable[[Tensors], Tensor], weights: Tensors, along: Tensors, step: float) -> Tensor:
    ahead, behind = (plain(add(weights, scale(along, sign * step))) for sign in (1, -1))
    return (ahead - behind) / (2 * step)


def _cosine(tree: Tensors, target: Tensors) -> Tensor:
    dot = torch.stack([(tree[k] * target[k]).sum() for k in tree]).sum()
    return dot / (global_norm(tree) * global_norm(target))


def _figures(derive: Callable[[], Tensor], reference: Tensor) -> dict[str, float]:
    found = derive()
    return {"error": _error(found, reference), "signs": _signs(found, reference), "ms": _milliseconds(derive)}


def _error(found: Tensor, reference: Tensor) -> float:
    error: Tensor = (found - reference).norm() / reference.norm()
    return round(error.item(), 6)


def _signs(found: Tensor, reference: Tensor) -> float:
    """The share of signs that agree: all that signed Adam uses."""
    agree: Tensor = (found.sign() == reference.sign()).float()
    return round(agree.mean().item(), 4)


def _milliseconds(derive: Callable[[], object]) -> float:
    times = list[float]()
    for _ in range(REPEATS):
        began = time.perf_counter()
        derive()
        times.append(1000 * (time.perf_counter() - began))
    return round(median(times), 2)
