"""How an update travels: the wire side of a defense."""

from abc import ABC, abstractmethod
from typing import final

from fl_sim.core.types import Tensors


class Codec(ABC):
    """How a protected update travels. Codecs nest: encoded first to last, decoded last to first."""

    @abstractmethod
    def encode(self, payload: Tensors) -> Tensors:
        """Named tensors as they are sent; smaller where the mechanism makes that possible."""

    @abstractmethod
    def decode(self, payload: Tensors, like: Tensors) -> Tensors:
        """What was sent, as tensors named and shaped like ``like`` (or still encoded by a codec before this one)."""


@final
class Dense(Codec):
    """Every tensor as it is."""

    def encode(self, payload: Tensors) -> Tensors:
        return payload

    def decode(self, payload: Tensors, like: Tensors) -> Tensors:
        del like
        return payload
