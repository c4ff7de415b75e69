"""The strict reading of a public file's tensors: each is taken once by name, and none may be left."""

from collections.abc import Mapping
from itertools import count, takewhile
from typing import Any, NamedTuple

from torch import Tensor

from fl_sim.core.errors import ConfigError
from fl_sim.core.types import Tensors


class Converted(NamedTuple):
    """A generator of ours: its name in the registry, its options, its tensors."""

    architecture: str
    options: Mapping[str, Any]
    tensors: Tensors


class Keys:
    """Tensors of a file, by name.

    Args:
        what: The file and the kind that it is read as; opens every message.
    """

    def __init__(self, tensors: Mapping[Any, Any], what: str) -> None:
        self._left = dict(tensors)
        self._what = what

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str, dims: int | None = None) -> Tensor:
        """The tensor in float32, of ``dims`` dimensions where given.

        Raises:
            ConfigError: There is none of this name, or it is something else.
        """
        found = self._left.pop(name, None)
        if not isinstance(found, Tensor):
            some = ", ".join(sorted(map(str, self._left))[:3]) or "none"
            raise ConfigError(f"{self._what}: expected a tensor {name!r}, got others ({some} ...): choose another kind")
        if dims is not None and found.dim() != dims:
            raise ConfigError(f"{self._what}: expected {dims} dimensions of {name!r}, got {tuple(found.shape)}")
        return found.detach().float()

    def drop(self, *names: str) -> None:
        """Tensors that must be there, but that we have no use for."""
        for name in names:
            self.take(name)

    def places(self, pattern: str, step: int = 1) -> list[int]:
        """0, ``step``, twice that ..., as far as there are names ``pattern.format(place)``."""
        return list(takewhile(lambda place: pattern.format(place) in self._left, count(0, step)))

    def end(self) -> None:
        """Refuse what was not taken.

        Raises:
            ConfigError: Something was left.
        """
        if self._left:
            some = ", ".join(sorted(map(str, self._left))[:5])
            raise ConfigError(
                f"{self._what}: expected no other tensors, got {len(self._left)} more ({some}): choose another kind, "
                "or another file"
            )
