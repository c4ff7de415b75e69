"""What the adversary may know beyond the wire. Granted by a study's ``[adversary]``, checked by ``Attack.__call__``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from fl_sim.core.contracts import AnyDefense


class DefenseKnowledge(IntEnum):
    """How much of the defense is known; each level includes the ones before it."""

    UNKNOWN = 0
    KIND = 1  # which mechanism; its strength is left to be estimated
    PARAMETERS = 2  # and its strength
    RANDOMNESS = 3  # and what it drew: a pruning mask, say


@dataclass(frozen=True, slots=True)
class Kind:
    """A mechanism without its strength.

    Args:
        mechanism: Its class, which can be asked for an estimate of its parameters.
        feedback: Whether the client adds what is lost to its next update.
    """

    mechanism: type[AnyDefense]
    feedback: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """Granted facts; ``None`` or empty means "may not know".

    Args:
        labels: ``(N,)`` int64, the labels of the images behind the observation.
        defense_level: How much of the defense is known.
        defense_kinds: The mechanisms without their strength, in their order, from level KIND.
        defenses: The mechanisms themselves, from level PARAMETERS.
        randomness: What they drew, from level RANDOMNESS, as ``place/name``: the place in ``defenses``, its own name.
    """

    labels: Tensor | None = None
    defense_level: DefenseKnowledge = DefenseKnowledge.UNKNOWN
    defense_kinds: tuple[Kind, ...] | None = None
    defenses: tuple[AnyDefense, ...] | None = None
    randomness: Mapping[str, Tensor] = field(default_factory=dict)
