"""Defenses that send only part of an update."""

import math
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Annotated, ClassVar, Literal, Self, final

import torch
from pydantic import Field
from torch import Generator, Tensor

from defenses.positions import coded, decoded, length
from fl_sim.core.codec import Codec
from fl_sim.core.contracts import Defense, Protected
from fl_sim.core.density import Choice, Interval
from fl_sim.core.part import Unit, part
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat, size
from fl_sim.core.types import Tensors, Update

INDEX, VALUE = ":index", ":value"
_LOUD, _BEYOND = 3.0, 0.0027  # stds that stand out of Gaussian noise, and how much of the noise itself does
_SURE = 2.0  # stds of a share


@final
class Sparse(Codec):
    """Positions in few bits and values of the entries other than zero, for each tensor where that is smaller."""

    def encode(self, payload: Tensors) -> Tensors:
        return dict(entry for name, t in payload.items() for entry in self._encode(name, t))

    def decode(self, payload: Tensors, like: Tensors) -> Tensors:
        dense = {name: t for name, t in payload.items() if not name.endswith((INDEX, VALUE))}
        sparse = [name.removesuffix(INDEX) for name in payload if name.endswith(INDEX)]
        return dense | {name: self._dense(payload, name, _origin(name, like)) for name in sparse}

    @staticmethod
    def _encode(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        index = tensor.reshape(-1).nonzero().squeeze(1)
        spared = (tensor.numel() - len(index)) * tensor.element_size()
        if length(len(index), tensor.numel()) >= spared:
            yield name, tensor
        else:
            yield name + INDEX, coded(index, tensor.numel())
            yield name + VALUE, tensor.reshape(-1)[index]

    @staticmethod
    def _dense(payload: Tensors, name: str, like: Tensor) -> Tensor:
        value = payload[name + VALUE]
        index = decoded(payload[name + INDEX], len(value), like.numel())
        return torch.zeros(like.numel(), dtype=value.dtype).scatter(0, index, value).view(like.shape)


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
        feedback: Whether what was not sent is added to the client's next update (error feedback).

    Known as gradient compression or sparsification (arXiv 1712.01887, here without momentum correction). Ties at the
    threshold are all kept.
    """

    keep: Annotated[float, Field(gt=0, le=1), Unit("share of entries kept")]
    scope: Literal["global", "layer"] = "global"
    feedback: bool = False

    @property
    def codec(self) -> Codec:
        return Sparse()

    def protect(self, update: Update, rng: Generator) -> Protected:
        del rng
        delta = self._pruned(update.delta)
        kept = sum(int(t.count_nonzero()) for t in delta.values())
        stats = {"kept": kept / size(delta)}
        return Protected(replace(update, delta=delta), stats)

    @classmethod
    def inferred(cls, received: Update, noise: float) -> Self:
        """The share of entries that were sent, of each tensor where most tensors have the same.

        Under noise those that stand out of it: too few, the largest. Too few also where zeros were among the kept.
        """
        counts = [(_standing_out(t, noise), t.numel()) for t in received.delta.values()]
        several = [(sent, entries) for sent, entries in counts if sent > 1]
        typical = median(sent / entries for sent, entries in several) if several else 0.0
        alike = sum(abs(sent - typical * entries) <= 1 for sent, entries in several)
        if not noise and len(several) > 1 and 2 * alike > len(several):
            return cls(keep=typical, scope="layer")
        return cls(keep=max(1, sum(sent for sent, _ in counts)) / size(received.delta))

    def choices(self, clean: Tensors, drawn: Tensors) -> tuple[Choice, ...]:
        """Pruning before noise: the guess's own largest entries."""
        del drawn
        trials = range(len(next(iter(clean.values()))))
        pruned = [self._pruned({name: t[i] for name, t in clean.items()}) for i in trials]
        return (Choice(1.0, {name: torch.stack([p[name] for p in pruned]) for name in clean}),)

    def bounds(self, output: Interval) -> Interval:
        """What was kept as it is; what was not lies below the smallest that was kept."""
        sent = {name: (output.low[name] > 0) | (output.high[name] < 0) for name in output.low}
        size = {name: torch.maximum(output.low[name].abs(), output.high[name].abs()) for name in output.low}
        least = {name: size[name][sent[name]].min() for name in sent if sent[name].any()}
        if self.scope == "global" and least:
            least = dict.fromkeys(sent, torch.stack(list(least.values())).min())
        reach = {name: least.get(name, size[name].max()) for name in sent}
        low = {name: torch.where(sent[name], t, torch.minimum(t, -reach[name])) for name, t in output.low.items()}
        high = {name: torch.where(sent[name], t, torch.maximum(t, reach[name])) for name, t in output.high.items()}
        return Interval(low, high)

    def _pruned(self, update: Tensors) -> Tensors:
        threshold = None if self.scope == "layer" else self._threshold(flat(update))
        return {name: self._prune(t, threshold) for name, t in update.items()}

    def _prune(self, tensor: Tensor, threshold: Tensor | None) -> Tensor:
        least = self._threshold(tensor.reshape(-1)) if threshold is None else threshold
        return torch.where(tensor.abs() >= least, tensor, 0.0)

    def _threshold(self, entries: Tensor) -> Tensor:
        return entries.abs().topk(max(1, round(self.keep * entries.numel()))).values[-1]


@part
class RandomPrune(Defense):
    """Entries are zeroed by chance, whatever their size; kept ones are sent as they are.

    Args:
        rate: Chance of an entry to be pruned, in [0, 1); 0 is no defense. The share of zeros, not of kept ones.
        mask: ``fixed``: one mask for all clients, rounds and images, drawn from ``seed`` (arXiv 2111.04706); ``fresh``:
            a new one for each update.
        seed: Of the fixed mask. An adversary learns the mask only as granted randomness, never from the seed.

    Nothing is scaled up for what is missing: the update is biased towards zero by ``rate``.
    """

    leaks: ClassVar[frozenset[str]] = frozenset({"mask"})

    rate: Annotated[float, Field(ge=0, lt=1), Unit("chance of an entry to be zeroed")]
    mask: Literal["fixed", "fresh"] = "fixed"
    seed: int = 0

    @property
    def codec(self) -> Codec:
        return Sparse()

    def protect(self, update: Update, rng: Generator) -> Protected:
        drawing = derive(self.seed, "random_prune") if self.mask == "fixed" else rng
        kept = {k: (torch.rand(t.shape, generator=drawing) >= self.rate).to(t) for k, t in update.delta.items()}
        delta = {name: t * kept[name] for name, t in update.delta.items()}
        share = flat(kept).mean().item()
        return Protected(replace(update, delta=delta), {"kept": share}, {f"mask/{k}": m for k, m in kept.items()})

    @classmethod
    def inferred(cls, received: Update, noise: float) -> Self:
        """By the tensor of which most was sent, its doubt allowed for: elsewhere entries were zero before (dead ReLUs).

        Under noise what stands out of it was sent: the rate is too large where much does not.
        """
        kept = [_at_least(_standing_out(t, noise), t.numel()) for t in received.delta.values()]
        return cls(rate=min(1 - max(kept, default=1.0), 1 - 1 / size(received.delta)))

    def shown(self, output: Tensors) -> Tensors:
        """The mask, by the zeros; what was zero before counts as pruned."""
        return {f"mask/{name}": (t != 0).to(t) for name, t in output.items()} if self.rate else {}

    def choices(self, clean: Tensors, drawn: Tensors) -> tuple[Choice, ...]:
        """One where the mask is known; else kept or pruned, each entry for itself."""
        if drawn:
            return (Choice(1.0, {name: t * drawn[f"mask/{name}"] for name, t in clean.items()}),)
        if not self.rate:
            return (Choice(1.0, clean),)
        pruned = {name: torch.zeros_like(t) for name, t in clean.items()}
        return Choice(1 - self.rate, clean), Choice(self.rate, pruned)


def _standing_out(tensor: Tensor, noise: float) -> int:
    """How many entries are more than noise of a given std, less those of the noise that are so too; none: not zero."""
    beyond = int((tensor.abs() > _LOUD * noise).sum())
    return max(0, beyond - round(_BEYOND * tensor.numel())) if noise else beyond


def _at_least(sent: int, entries: int) -> float:
    """The share of entries that was sent; lower for few entries, which may have been lucky."""
    share = sent / max(entries, 1)
    return max(0.0, share - _SURE * math.sqrt(share * (1 - share) / max(entries, 1)) - 1 / max(entries, 1))
