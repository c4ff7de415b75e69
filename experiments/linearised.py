"""How what a client sends moves with its images, to first order: what any adversary's uncertainty rests on.

Where ``g = f(x) + N(0, s^2)`` and images are Gaussian of covariance ``L L^T``, the posterior linearised at a point has
the covariance ``L (L^T J^T J L / s^2 + 1)^-1 L^T`` (K15 of the self-test), and its mean the error ``trace / d``.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from math import log10
from statistics import fmean
from typing import NamedTuple, TypeAlias

import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor, nn

from fl_sim.core.contracts import Defense, ExampleDefense
from fl_sim.core.density import Choice
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat, map_tree
from fl_sim.core.types import Batch, Protocol, Task, Tensors
from fl_sim.training.local import gradient, local_update, state_of

Product: TypeAlias = Callable[[Tensor], Tensor]

STEPS = 64  # of Lanczos, two backward passes each


class Signal(NamedTuple):
    """A client's update before noise: local training, then ``join`` of examples' gradients, then ``before``."""

    model: nn.Module
    protocol: Protocol
    join: ExampleDefense | None = None
    before: tuple[Defense, ...] = ()

    def __call__(self, batch: Batch) -> Tensor:
        """Flat, differentiable in the images. Of choices (kept or pruned), each scaled by the root of its chance: the
        information is then what it is on average for those who know which was made.
        """
        found = [Choice(1.0, map_tree(lambda t: t[None], self._clean(batch)))]
        for defense in self.before:
            found = [Choice(c.probability * n.probability, n.values) for c in found for n in defense.choices(c[1], {})]
        return torch.cat([c.probability**0.5 * flat(c.values) for c in found])

    def _clean(self, batch: Batch) -> Tensors:
        rule, state = partial(gradient, create_graph=True), state_of(self.model)
        if self.join is None:
            return local_update(self.model, state, batch, self.protocol, derive(0, "forecast"), rule)[0].delta
        self.model.eval()
        parts = zip(torch.split(batch.images, 1), torch.split(batch.labels, 1), strict=True)
        trees = [rule(self.model, state, Batch(*part)).tree for part in parts]
        joined = self.join.join({name: torch.stack([t[name] for t in trees])[None] for name in trees[0]})
        return map_tree(lambda t: t[0], joined)


class Spectrum(NamedTuple):
    """At one batch: ``sum_j weights_j f(nodes_j)`` stands for ``trace(S L f(L^T J^T J L) L^T) / d``.

    J is the Jacobian in normalised pixels, S holds the square of each pixel's std. ``norm`` is the signal's own.
    """

    nodes: Tensor
    weights: Tensor
    norm: float

    def psnr(self, std: float) -> float:
        """Of the posterior mean in dB, images in [0, 1], behind Gaussian noise of ``std``; not clamped."""
        return -10 * log10((self.weights / (self.nodes / std**2 + 1)).sum().item())


def spectrum(
    signal: Signal, batch: Batch, task: Task, steps: int = STEPS, place: int = 0, root: Tensor | None = None
) -> Spectrum:
    """By Lanczos from one random vector (stochastic Lanczos quadrature), in double precision.

    ``root`` is L of one image ``(d, d)``, in normalised units; ``None``: pixels are independent, of the task's std.
    The vector makes ``trace`` right on average, within some per cent in hundreds of independent pixels; it is scaled so
    that the trace without any signal is right. Gauss quadrature comes from below for this trace: too few steps promise
    too high a PSNR, never too low a one.
    """
    signal = signal._replace(model=deepcopy(signal.model).double())
    shape = batch.images.shape
    mean, std = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (task.mean, task.std))
    pixels = ((batch.images.double() - mean) / std).flatten().requires_grad_()
    sent = signal(Batch(mean + std * pixels.view(shape), batch.labels))
    signs = torch.randint(2, shape, generator=derive(0, "signs", place)) * 2.0 - 1
    there, back = _through(root, shape[0])
    start, information = back((std * signs.double()).flatten()), _information(sent, pixels)
    known = fmean(s**2 for s in task.std) if root is None else variance(root, task.std)
    nodes, weights = lanczos(lambda vector: back(information(there(vector))), start, steps)
    return Spectrum(nodes, weights * known, sent.norm().item())


def covariance_root(images: Tensor, task: Task) -> Tensor:
    """L of images ``(M, C, H, W)`` in [0, 1], in normalised units ``(d, d)``; shrunk as Ledoit and Wolf (2004) do."""
    mean, std = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (task.mean, task.std))
    found, _ = ledoit_wolf(((images.double() - mean) / std).flatten(1).numpy())
    root: Tensor = torch.linalg.cholesky(torch.from_numpy(found))
    return root


def variance(root: Tensor, std: Sequence[float]) -> float:
    """Of a pixel in [0, 1], the mean over pixels."""
    by_channel = root.square().sum(1).view(len(std), -1).mean(1)
    return fmean(own**2 * float(normalised) for own, normalised in zip(std, by_channel, strict=True))


def _through(root: Tensor | None, images: int) -> tuple[Product, Product]:
    """Every image's pixels by L, and by its transpose."""
    if root is None:
        return (lambda vector: vector), (lambda vector: vector)
    whole = root
    return (
        lambda vector: (vector.view(images, -1) @ whole.T).flatten(),
        lambda vector: (vector.view(images, -1) @ whole).flatten(),
    )


def _information(sent: Tensor, pixels: Tensor) -> Product:
    """``v -> J^T J v``; the slope's slope in its own weight is ``J v``."""
    weight = torch.zeros_like(sent, requires_grad=True)
    (slope,) = torch.autograd.grad(sent, pixels, weight, create_graph=True)

    def product(vector: Tensor) -> Tensor:
        (moved,) = torch.autograd.grad(slope, weight, vector, retain_graph=True)
        (back,) = torch.autograd.grad(sent, pixels, moved, retain_graph=True)
        return back

    return product


def lanczos(product: Product, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights (of sum 1) of the Gauss quadrature of a symmetric matrix, positive semidefinite, at ``start``.

    Reorthogonalised in full; ends early where the vectors that it can reach are exhausted.
    """
    basis, diagonal, beside = [start / start.norm()], list[Tensor](), list[Tensor]()
    for _ in range(min(steps, len(start))):
        rest = product(basis[-1])
        diagonal.append(basis[-1] @ rest)
        found = torch.stack(basis)
        for _ in range(2):
            rest = rest - found.T @ (found @ rest)
        if rest.norm() <= 1e-12 * torch.stack(diagonal).max():
            break
        beside.append(rest.norm())
        basis.append(rest / rest.norm())
    off = torch.stack(beside[: len(diagonal) - 1]) if len(diagonal) > 1 else torch.zeros(0, dtype=start.dtype)
    values, vectors = torch.linalg.eigh(torch.diag(torch.stack(diagonal)) + torch.diag(off, 1) + torch.diag(off, -1))
    return values.clamp_min(0), vectors[0].square()
