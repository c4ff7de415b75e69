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
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor, nn

from fl_sim.core.contracts import Defense, ExampleDefense
from fl_sim.core.density import Choice
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat, map_tree
from fl_sim.core.types import Batch, Protocol, Task, Tensors
from fl_sim.training.local import State, gradient, local_update, state_of

Product: TypeAlias = Callable[[Tensor], Tensor]

STEPS = 64  # of Lanczos, two backward passes each
MOST_PIXELS = 32_768  # of a batch: more take minutes


class Signal(NamedTuple):
    """A client's update before noise: local training, then ``join`` of examples' gradients, then ``before``.

    ``before`` are defenses, each with what it is known to have drawn. ``start`` is what training starts from, the
    model's own weights where not given; ``order`` is the place whose seed shuffles the images.
    """

    model: nn.Module
    protocol: Protocol
    join: ExampleDefense | None = None
    before: tuple[tuple[Defense, Tensors], ...] = ()
    start: State | None = None
    order: tuple[int | str, ...] = (0, "forecast")

    def __call__(self, batch: Batch) -> Tensor:
        """Flat, differentiable in the images. Of choices (kept or pruned), each scaled by the root of its chance: the
        information is then what it is on average for those who know which was made.
        """
        found = [Choice(1.0, map_tree(lambda t: t[None], self._clean(batch)))]
        for defense, drawn in self.before:
            found = [
                Choice(c.probability * n.probability, n.values) for c in found for n in defense.choices(c[1], drawn)
            ]
        return torch.cat([c.probability**0.5 * flat(c.values) for c in found])

    def double(self) -> "Signal":
        """In double precision; a copy."""
        start = self.start and State(*(map_tree(Tensor.double, tree) for tree in self.start))
        return self._replace(model=deepcopy(self.model).double(), start=start)

    def _clean(self, batch: Batch) -> Tensors:
        rule, state = partial(gradient, create_graph=True), self.start or state_of(self.model)
        if self.join is None:
            seed, *place = self.order
            return local_update(self.model, state, batch, self.protocol, derive(int(seed), *place), rule)[0].delta
        self.model.eval()
        parts = zip(torch.split(batch.images, 1), torch.split(batch.labels, 1), strict=True)
        trees = [rule(self.model, state, Batch(*part)).tree for part in parts]
        joined = self.join.join({name: torch.stack([t[name] for t in trees])[None] for name in trees[0]})
        return map_tree(lambda t: t[0], joined)


class Linear(NamedTuple):
    """A signal at one batch, flat, and products with its Jacobian J in normalised pixels; all in double precision."""

    sent: Tensor
    shape: torch.Size  # (N, C, H, W)
    push: Product  # v -> J v
    pull: Product  # u -> J^T u

    @classmethod
    def of(cls, signal: Signal, batch: Batch, task: Task) -> "Linear":
        mean, std = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (task.mean, task.std))
        shape = batch.images.shape
        pixels = ((batch.images.double() - mean) / std).flatten().requires_grad_()
        sent = signal.double()(Batch(mean + std * pixels.view(shape), batch.labels))
        weight = torch.zeros_like(sent, requires_grad=True)
        (slope,) = torch.autograd.grad(sent, pixels, weight, create_graph=True)  # J^T weight, of which J v is the slope
        return cls(
            sent.detach(),
            shape,
            lambda vector: torch.autograd.grad(slope, weight, vector, retain_graph=True)[0],
            lambda vector: torch.autograd.grad(sent, pixels, vector, retain_graph=True)[0],
        )

    def information(self, vector: Tensor) -> Tensor:
        """``J^T J v``."""
        return self.pull(self.push(vector))


class Covariance(NamedTuple):
    """``rows^T rows + floor^2`` of one image's pixels, in normalised units: no ``(d, d)`` matrix is made.

    Its root L is ``[rows^T, floor]``, ``(d, M + d)``.
    """

    rows: Tensor  # (M, d) float64
    floor: float

    @classmethod
    def independent(cls, pixels: int) -> "Covariance":
        """Of pixels that have the task's std and nothing to do with one another."""
        return cls(torch.zeros(0, pixels, dtype=torch.float64), 1.0)

    @classmethod
    def fitted(cls, images: Tensor, task: Task) -> "Covariance":
        """Of images ``(M, C, H, W)`` in [0, 1]; shrunk as Ledoit and Wolf (2004) do."""
        mean, std = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (task.mean, task.std))
        pixels = ((images.double() - mean) / std).flatten(1)
        centred = (pixels - pixels.mean(0)) / len(pixels) ** 0.5
        shrunk = float(ledoit_wolf_shrinkage(pixels.numpy()))
        return cls((1 - shrunk) ** 0.5 * centred, (shrunk * centred.square().sum(0).mean().item()) ** 0.5)

    def root(self, vector: Tensor) -> Tensor:
        """L of every image, ``(N (M + d),)`` to ``(N d,)``."""
        count, pixels = self.rows.shape
        each = vector.view(-1, count + pixels)
        return (each[:, :count] @ self.rows + self.floor * each[:, count:]).flatten()

    def transposed(self, vector: Tensor) -> Tensor:
        """``L^T`` of every image, ``(N d,)`` to ``(N (M + d),)``."""
        each = vector.view(-1, self.rows.shape[1])
        return torch.cat([each @ self.rows.T, self.floor * each], 1).flatten()

    def variance(self, std: Sequence[float]) -> float:
        """Of a pixel in [0, 1], the mean over pixels."""
        by_channel = (self.rows.square().sum(0) + self.floor**2).view(len(std), -1).mean(1)
        return fmean(own**2 * float(normalised) for own, normalised in zip(std, by_channel, strict=True))


class Spectrum(NamedTuple):
    """At one batch: ``sum_j weights_j f(nodes_j)`` stands for ``trace(S L f(L^T J^T J L) L^T) / d``.

    J is the Jacobian in normalised pixels, S holds the square of each pixel's std. ``norm`` is the signal's own.
    """

    nodes: Tensor
    weights: Tensor
    norm: float

    def error(self, std: float) -> float:
        """Mean squared error of the posterior mean, images in [0, 1], behind Gaussian noise of ``std``."""
        return (self.weights / (self.nodes / std**2 + 1)).sum().item()

    def psnr(self, std: float) -> float:
        """The same in dB; not clamped."""
        return -10 * log10(self.error(std))


def spectrum(
    linear: Linear, task: Task, prior: Covariance, steps: int = STEPS, place: int = 0, image: int | None = None
) -> Spectrum:
    """By Lanczos from one random vector (stochastic Lanczos quadrature); of all images, or of one among the others.

    The vector makes ``trace`` right on average, within some per cent in hundreds of independent pixels; it is scaled so
    that the trace without any signal is right. Gauss quadrature comes from below for this trace: too few steps promise
    too high a PSNR, never too low a one.
    """
    count, *pixels = linear.shape
    std = torch.tensor(task.std, dtype=torch.float64).view(-1, 1, 1)
    drawn = (
        torch.randint(2, (1 if image is not None else count, *pixels), generator=derive(0, "signs", place)) * 2.0 - 1
    )
    probed = torch.tensor([image in {None, i} for i in range(count)]).view(-1, 1, 1, 1)
    start = prior.transposed((std * probed * drawn.double()).flatten())
    found = lanczos(lambda v: prior.transposed(linear.information(prior.root(v))), start, steps)
    return Spectrum(found.nodes, found.weights * prior.variance(task.std), linear.sent.norm().item())


class Krylov(NamedTuple):
    """A symmetric matrix A, positive semidefinite, as one vector sees it: ``f(A) start ~ (parts f(nodes)) @ vectors``.

    ``vectors`` ``(k, n)`` are orthonormal, nodes in rising order: Ritz vectors and values.
    """

    nodes: Tensor
    vectors: Tensor
    parts: Tensor

    @property
    def weights(self) -> Tensor:
        """Of the Gauss quadrature of A at the vector; their sum is 1."""
        return self.parts.square() / self.parts.square().sum()


def lanczos(product: Product, start: Tensor, steps: int) -> Krylov:
    """Reorthogonalised in full; ends early where the vectors that it can reach are exhausted."""
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
    return Krylov(values.clamp_min(0), vectors.T @ torch.stack(basis[: len(diagonal)]), start.norm() * vectors[0])
