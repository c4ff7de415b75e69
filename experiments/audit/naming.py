"""Recorded arrays under the model's own names."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from experiments.audit.arrays import Arrays, is_list
from fl_sim.core.errors import ConfigError
from fl_sim.core.types import Tensors
from fl_sim.training.local import State, state_of

_COUNTER = "num_batches_tracked"


@dataclass(frozen=True, slots=True)
class Named:
    """A recorded state.

    Args:
        state: Every weight of the model, and those batch-norm statistics that were recorded.
        counter: Batches that batch norm had seen, where that was recorded.
    """

    state: State
    counter: int | None


@dataclass(frozen=True)
class Naming:
    """From recorded names to the model's; see :class:`experiments.audit.config.Audit`."""

    model: nn.Module
    names: Mapping[str, str] | Sequence[str]
    transpose: Sequence[str]

    def __call__(self, arrays: Arrays, source: str) -> Named:
        """Complete, of the right shapes, finite.

        Raises:
            ConfigError: With every name that is missing, unknown or of another shape, and what might be meant.
        """
        expected = state_of(self.model)
        whole = {**expected.weights, **expected.buffers}
        found = self._renamed(arrays, source)
        counters = [int(t) for name, t in found.items() if name.endswith(_COUNTER)]
        found = {name: t for name, t in found.items() if not name.endswith(_COUNTER)}
        if unknown := sorted(set(self.transpose) - set(found)):
            raise ConfigError(
                f"{source}: transpose: expected the model's names, got {unknown}; there are {list(found)}"
            )
        found = {name: t.T.contiguous() if name in self.transpose else t for name, t in found.items()}
        if problems := list(_problems(found, expected.weights, whole)):
            raise ConfigError([f"{source}: {problem}" for problem in problems])
        weights = {name: found[name] for name in expected.weights}
        buffers = {name: found[name] for name in expected.buffers if name in found}
        return Named(State(weights, buffers), counters[0] if counters else None)

    def _renamed(self, arrays: Arrays, source: str) -> Arrays:
        if isinstance(self.names, Mapping):
            if unknown := sorted(set(self.names) - set(arrays)):
                raise ConfigError(f"{source}: names: expected recorded names, got {unknown}; there are {list(arrays)}")
            arrays = {self.names.get(name, name): t for name, t in arrays.items()}
            return self._listed(arrays, source) if is_list(arrays) else self._unwrapped(arrays)
        if len(self.names) != len(arrays):
            raise ConfigError(f"{source}: names: expected {len(arrays)} of them, as recorded, got {len(self.names)}")
        return dict(zip(self.names, arrays.values(), strict=True))

    def _listed(self, arrays: Arrays, source: str) -> Arrays:
        """A list is in the order of the state dict, as Flower's and NVFlare's examples make it, or of the weights."""
        orders = [list(self.model.state_dict()), list(state_of(self.model).weights)]
        for order in orders:
            if len(order) == len(arrays):
                return dict(zip(order, arrays.values(), strict=True))
        counts = " or ".join(str(len(order)) for order in orders)
        raise ConfigError(f"{source}: expected a list of {counts} arrays, got {len(arrays)}: set names, in its order")

    def _unwrapped(self, arrays: Arrays) -> Arrays:
        """Without what a wrapper (DataParallel, a compiler, a trainer) put before every name."""
        first = next(iter(state_of(self.model).weights))
        prefix = next((name.removesuffix(first) for name in arrays if name.endswith(f".{first}")), "")
        return {name.removeprefix(prefix): t for name, t in arrays.items()}


def _problems(found: Tensors, weights: Tensors, whole: Tensors) -> Iterable[str]:
    extra, missing = sorted(set(found) - set(whole)), [name for name in weights if name not in found]
    if missing:
        alike = {name: _of_shape(weights[name], {n: found[n] for n in extra}) for name in missing}
        near = "".join(f"; {name} may be recorded as {others}" for name, others in alike.items() if others)
        yield f"expected the weights {missing} too, got {extra or 'no other'}{near}: set names"
    elif extra:
        yield f"expected no array but the model's, got {extra} as well: is it this model? Else set names"
    for name in (name for name in whole if name in found):
        mine, theirs = tuple(whole[name].shape), tuple(found[name].shape)
        if mine != theirs:
            turned = f': set transpose = ["{name}"]' if mine == theirs[::-1] else ": is it this model?"
            yield f"expected {name} to be {mine}, got {theirs}{turned}"
        elif not bool(torch.isfinite(found[name]).all()):
            yield f"expected finite numbers in {name}, got NaN or infinity"


def _of_shape(like: Tensor, candidates: Tensors) -> list[str]:
    return [name for name, t in candidates.items() if t.shape == like.shape]
