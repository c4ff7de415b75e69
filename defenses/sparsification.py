"""Defenses that send only part of an update."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, final

import torch
from pydantic import Field
from torch import Generator, Tensor

from fl_sim.core.contracts import Codec, Defense, Protected
from fl_sim.core.errors import NoDensityError
from fl_sim.core.knowledge import Knowledge
from fl_sim.core.part import part
from fl_sim.core.trees import flat, size
from fl_sim.core.types import Tensors, Update

INDEX, VALUE = ":index", ":value"


@final
class Sparse(Codec):
    """Positions (int32) and values of the non-zero entries, for each tensor where that is smaller."""

    def encode(self, payload: Tensors) -> Tensors:
        return dict(entry for name, t in payload.items() for entry in self._encode(name, t))

    def decode(self, payload: Tensors, like: Tensors) -> Tensors:
        dense = {name: t for name, t in payload.items() if not name.endswith((INDEX, VALUE))}
        sparse = [name.removesuffix(INDEX) for name in payload if name.endswith(INDEX)]
        return dense | {name: self._dense(payload, name, _origin(name, like)) for name in sparse}

    @staticmethod
    def _encode(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        index = tensor.reshape(-1).nonzero().squeeze(1)
        if index.numel() * 2 >= tensor.numel():
            yield name, tensor
        else:
            yield name + INDEX, index.to(torch.int32)
            yield name + VALUE, tensor.reshape(-1)[index]

    @staticmethod
    def _dense(payload: Tensors, name: str, like: Tensor) -> Tensor:
        value = payload[name + VALUE]
        return (
            torch.zeros(like.numel(), dtype=value.dtype)
            .scatter(0, payload[name + INDEX].long(), value)
            .view(like.shape)
        )


def _origin(name: str, like: Tensors) -> Tensor:
    """The tensor that an encoded one stands for: codecs before this one add to its name and keep its shape."""
    found = [t for original, t in like.items() if name == original or name.startswith(f"{original}:")]
    if not found:
        raise KeyError(f"{name} belongs to none of {sorted(like)}")
    return found[0]


@part
class TopK(Defense):
    """Magnitude pruning: keep the largest entries of the update, send zeros (that is, nothing) for the others.

    Args:
        keep: Fraction of entries kept, in (0, 1]; at least one entry is. Pruning 90 % is ``keep = 0.1``.
        scope: Largest of the whole update (``global``) or of each tensor (``layer``).

    Known as gradient compression or sparsification (arXiv 1712.01887, here without momentum correction and error
    feedback). Ties at the threshold are all kept.
    """

    codec: ClassVar[Codec] = Sparse()

    keep: Annotated[float, Field(gt=0, le=1)]
    scope: Literal["global", "layer"] = "global"

    def protect(self, update: Update, rng: Generator) -> Protected:
        del rng
        threshold = None if self.scope == "layer" else self._threshold(flat(update.delta))
        delta = {name: self._prune(t, threshold) for name, t in update.delta.items()}
        kept = sum(int(t.count_nonzero()) for t in delta.values())
        stats = {"kept": kept / size(delta)}
        return Protected(replace(update, delta=delta), stats)

    def log_likelihood(self, observed: Tensors, clean: Tensors, knowledge: Knowledge) -> Tensor:
        del observed, clean, knowledge
        raise NoDensityError("pruning by magnitude is deterministic: a point mass", surrogate="kept")

    def _prune(self, tensor: Tensor, threshold: Tensor | None) -> Tensor:
        least = self._threshold(tensor.reshape(-1)) if threshold is None else threshold
        return torch.where(tensor.abs() >= least, tensor, 0.0)

    def _threshold(self, entries: Tensor) -> Tensor:
        return entries.abs().topk(max(1, round(self.keep * entries.numel()))).values[-1]
