"""Defenses that send linear measurements of an update, fewer than it has entries."""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Self, final

import torch
from pydantic import Field, PositiveInt
from torch import Generator, Tensor

from defenses.quantization import SHAPE, sent_shape, shape_of, without
from fl_sim.core.codec import Codec
from fl_sim.core.contracts import Defense, Protected
from fl_sim.core.density import Choice
from fl_sim.core.part import Unit, part
from fl_sim.core.seeds import derive
from fl_sim.core.trees import global_norm, map_tree, subtract
from fl_sim.core.types import Tensors, Update

LEFT, RIGHT, SUMS = ":left", ":right", ":sums"


@final
@dataclass(frozen=True, slots=True)
class Factors(Codec):
    """Tensors of low rank as two thin factors, where those are smaller; a tensor's first dimension counts its rows.

    Args:
        rank: Columns of a factor; tensors of a higher rank lose the rest.
        seed: Of the probe that finds the columns' space.
    """

    rank: int
    seed: int

    def smaller(self, shape: torch.Size) -> bool:
        """Whether two factors have fewer entries than a tensor of ``shape``."""
        if len(shape) < 2 or not shape.numel():
            return False
        return self.rank * (shape[0] + shape.numel() // shape[0]) < shape.numel()

    def basis(self, matrix: Tensor) -> Tensor:
        """An orthonormal basis ``(*, rows, rank)`` of what ``matrix`` ``(*, rows, columns)`` makes of the probe."""
        probe = torch.randn(matrix.shape[-1], self.rank, generator=derive(self.seed, "powersgd")).to(matrix)
        first = torch.linalg.qr(matrix @ probe).Q
        found: Tensor = torch.linalg.qr(matrix @ (matrix.mT @ first)).Q
        return found

    def encode(self, payload: Tensors) -> Tensors:
        sent = dict[str, Tensor]()
        for name, t in payload.items():
            if t.is_floating_point() and self.smaller(t.shape):
                left = self.basis(t.flatten(1))
                sent |= {name + LEFT: left, name + RIGHT: left.T @ t.flatten(1), **shape_of(name, t)}
            else:
                sent[name] = t
        return sent

    def decode(self, payload: Tensors, like: Tensors) -> Tensors:
        names = [name.removesuffix(LEFT) for name in payload if name.endswith(LEFT)]
        passed = without(payload, names, (LEFT, RIGHT, SHAPE))
        joined = {name: payload[name + LEFT] @ payload[name + RIGHT] for name in names}
        return passed | {name: t.view(sent_shape(name, payload, like)) for name, t in joined.items()}


@part
class PowerSgd(Defense):
    """Send the projection of each weight matrix on ``rank`` directions: two steps of the power method.

    Args:
        rank: Directions a matrix; convolutions are matrices with a row a filter. Tensors that two factors would not
            make smaller, biases among them, are sent as they are.
        seed: Of the first guess at the directions, which the server knows too.
        feedback: Whether what was not sent is added to the client's next update (error feedback).

    PowerSGD (arXiv 1905.13727) with a second step in the place of its warm start; its error feedback is ``feedback``.
    """

    rank: Annotated[PositiveInt, Unit("directions a matrix")]
    seed: int = 0
    feedback: bool = False

    @property
    def codec(self) -> Factors:
        return Factors(self.rank, self.seed)

    def protect(self, update: Update, rng: Generator) -> Protected:
        del rng
        delta = {name: t[0] for name, t in self.projected(map_tree(lambda t: t[None], update.delta)).items()}
        return Protected(replace(update, delta=delta), _lost(update.delta, delta))

    @classmethod
    def inferred(cls, received: Update, noise: float) -> Self:
        """The largest rank of a matrix that it makes smaller; of what stands out of the noise. At most the true one.

        The guess at the directions is taken to be that of seed 0; it hardly matters.
        """
        matrices = [t.flatten(1) for t in received.delta.values() if t.dim() > 1 and t.numel()]
        ranks = [(_rank(m, noise), m.shape) for m in matrices]
        return cls(rank=max((rank for rank, shape in ranks if Factors(rank, 0).smaller(shape)), default=1))

    def choices(self, clean: Tensors, drawn: Tensors) -> tuple[Choice, ...]:
        """The guess's own projection."""
        del drawn
        return (Choice(1.0, self.projected(clean)),)

    def projected(self, trials: Tensors) -> Tensors:
        """Each trial for itself, ``(T, *shape)``; differentiable, but for how the directions depend on it.

        Their derivative is infinite where the rank is less than ``rank``, as it is behind a single image.
        """
        return {name: self._projected(t) if self.codec.smaller(t.shape[1:]) else t for name, t in trials.items()}

    def _projected(self, trials: Tensor) -> Tensor:
        matrices = trials.flatten(2)
        left = self.codec.basis(matrices.detach())
        return (left @ (left.mT @ matrices)).view(trials.shape)


@final
@dataclass(frozen=True, slots=True)
class Buckets(Codec):
    """Count sketches: of a tensor, the sum of each bucket's entries with their signs.

    Args:
        ratio: Buckets over entries.
        seed: Of the buckets and signs, which both sides know.
    """

    ratio: float
    seed: int

    def width(self, entries: int) -> int:
        return max(1, round(self.ratio * entries))

    def hashes(self, entries: int) -> tuple[Tensor, Tensor]:
        """Bucket and sign of each entry, ``(entries,)``."""
        drawing = derive(self.seed, "sketch", entries)
        bucket = torch.randint(self.width(entries), (entries,), generator=drawing)
        return bucket, torch.randint(2, (entries,), generator=drawing) * 2 - 1

    def sums(self, vectors: Tensor) -> Tensor:
        """Sketches ``(*, width)`` of vectors ``(*, entries)``."""
        bucket, sign = (t.to(vectors.device) for t in self.hashes(vectors.shape[-1]))
        empty = vectors.new_zeros(*vectors.shape[:-1], self.width(vectors.shape[-1]))
        return empty.index_add(-1, bucket, vectors * sign)

    def estimate(self, sums: Tensor, entries: int) -> Tensor:
        """Every entry's bucket with its sign, ``(*, entries)``: unbiased over the seeds."""
        bucket, sign = (t.to(sums.device) for t in self.hashes(entries))
        return sums[..., bucket] * sign

    def encode(self, payload: Tensors) -> Tensors:
        """Of estimates, which tell their buckets' sums."""
        sent = dict[str, Tensor]()
        for name, t in payload.items():
            if t.is_floating_point():
                sent |= {name + SUMS: self._read(t), **shape_of(name, t)}
            else:
                sent[name] = t
        return sent

    def decode(self, payload: Tensors, like: Tensors) -> Tensors:
        names = [name.removesuffix(SUMS) for name in payload if name.endswith(SUMS)]
        passed = without(payload, names, (SUMS, SHAPE))
        return passed | {n: self._estimated(payload[n + SUMS], sent_shape(n, payload, like)) for n in names}

    def _estimated(self, sums: Tensor, shape: list[int]) -> Tensor:
        return self.estimate(sums, math.prod(shape)).view(shape)

    def _read(self, estimate: Tensor) -> Tensor:
        bucket, sign = self.hashes(estimate.numel())
        empty = estimate.new_zeros(self.width(estimate.numel()))
        return empty.index_copy(0, bucket, estimate.reshape(-1) * sign)


@part
class Sketch(Defense):
    """Send a count sketch of each tensor; the server estimates an entry by its bucket.

    Args:
        ratio: Numbers sent for each entry, in (0, 1).
        seed: Of the buckets and signs: fixed, and known to the server, which could not decode otherwise.

    One row of FetchSGD's sketch (arXiv 2007.07682), decoded linearly, without its momentum, error feedback and recovery
    of heavy entries: an entry's error is the sum of its bucket's other entries.
    """

    ratio: Annotated[float, Field(gt=0, lt=1), Unit("numbers sent an entry")]
    seed: int = 0

    @property
    def codec(self) -> Buckets:
        return Buckets(self.ratio, self.seed)

    def protect(self, update: Update, rng: Generator) -> Protected:
        del rng
        delta = {name: t[0] for name, t in self.estimated(map_tree(lambda t: t[None], update.delta)).items()}
        return Protected(replace(update, delta=delta), _lost(update.delta, delta))

    def choices(self, clean: Tensors, drawn: Tensors) -> tuple[Choice, ...]:
        """The guess's own estimate: linear in it."""
        del drawn
        return (Choice(1.0, self.estimated(clean)),)

    def estimated(self, trials: Tensors) -> Tensors:
        """Each trial for itself, ``(T, *shape)``; differentiable."""
        return {name: self._estimated(t) for name, t in trials.items()}

    def _estimated(self, trials: Tensor) -> Tensor:
        flat = trials.reshape(len(trials), -1)
        return self.codec.estimate(self.codec.sums(flat), flat.shape[1]).view(trials.shape)


def _rank(matrix: Tensor, noise: float) -> int:
    """Singular values above rounding, and above what those of noise exceed in 1 % (Davidson, Szarek); at least 1."""
    values = torch.linalg.svdvals(matrix.double())
    edge = noise * (sum(math.sqrt(side) for side in matrix.shape) + 3)
    return max(1, int((values > max(edge, 1e-5 * values[0].item())).sum()))


def _lost(before: Tensors, after: Tensors) -> dict[str, float]:
    """How far what is sent is from what was to be sent, relative to its norm; 0 where that is 0."""
    norm = global_norm(before).item()
    return {"relative_error": global_norm(subtract(after, before)).item() / norm if norm else 0.0}
