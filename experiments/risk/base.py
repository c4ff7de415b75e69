"""What a predictor is given, and what it owes.

Predictors need the record itself: they are the defender's figures, taken where the truth is known, and no attack.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from attacks.likelihoods.density import Stack
from experiments.linearised import MOST_PIXELS, Covariance, Linear, Signal
from fl_sim.core.contracts import AnyDefense, DataDefense
from fl_sim.core.density import Noise, Normal
from fl_sim.core.errors import NoDensityError
from fl_sim.core.trees import flat
from fl_sim.core.types import Batch, Observation, Tensors

_SUPPOSED = Normal(1.0)  # where a stack adds no noise
_FLOOR = 1e-15  # of errors: 150 dB, as of measured PSNR


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """An observation with what its client knows of it.

    Args:
        batch: The client's own images, ``(N, C, H, W)`` in [0, 1], and their labels.
        clean: The update before any defense, as a function of the images.
        defenses: The cell's.
        prior: What the adversary is taken to know of images beforehand.
        drawn: What defenses drew, where the adversary was told of it, as ``place/name``.
    """

    seen: Observation
    batch: Batch
    clean: Signal
    defenses: tuple[AnyDefense, ...]
    prior: Covariance
    drawn: Tensors = field(default_factory=dict)

    @cached_property
    def undefended(self) -> Linear:
        """The update that no defense had touched.

        Raises:
            NoDensityError: It cannot be linearised at these images.
        """
        self._check()
        return Linear.of(self.clean, self.batch, self.seen.task)

    @cached_property
    def shift(self) -> Tensor:
        """All that defenses did to the update, noise among it: received minus clean, flat.

        Raises:
            NoDensityError: As :attr:`undefended`, or they did nothing.
        """
        clean = self.undefended.sent
        moved = flat(self.seen.update.delta).double() - clean
        if moved.norm() <= 1e-5 * clean.norm():  # rounding
            raise NoDensityError("the update was sent as it is")
        return moved

    @cached_property
    def stack(self) -> Stack:
        """The defenses, read by the adversary's own density.

        Raises:
            NoDensityError: They have none, or add no noise; or as :attr:`undefended`.
        """
        self._check()
        stack = Stack.read(self.defenses, self.seen.update, self.drawn, _SUPPOSED)
        if stack.noise is _SUPPOSED:
            raise NoDensityError("no noise is added")
        return stack

    @property
    def noise(self) -> Noise:
        """On every entry of the update; as :attr:`stack`."""
        return self.stack.noise

    @property
    def signal(self) -> Signal:
        """The update as it was before the noise; as :attr:`stack`."""
        return self.clean._replace(join=self.stack.join, before=self.stack.before)

    @cached_property
    def before_noise(self) -> Linear:
        """:attr:`signal` at the images; refuses as it does."""
        if self.stack.join is None and not self.stack.before:
            return self.undefended
        return Linear.of(self.signal, self.batch, self.seen.task)

    def _check(self) -> None:
        if len(self.seen.members) > 1:
            raise NoDensityError("only the sum of several updates is seen")
        if any(isinstance(defense, DataDefense) for defense in self.defenses):
            raise NoDensityError("a data defense changes the images first")
        if self.batch.images.numel() > MOST_PIXELS:
            raise NoDensityError(f"too many images in an update, {len(self.batch.labels)}")


class Predictor(ABC):
    """Says of each record how much of it can be recovered, in dB; more is worse for its owner."""

    @abstractmethod
    def __call__(self, exposure: Exposure) -> Tensor:
        """``(N,)`` in dB, in the batch's order.

        Raises:
            NoDensityError: It has nothing to say of such an update, and why.
        """


def decibels(errors: Tensor) -> Tensor:
    """The PSNR of mean squared errors of images in [0, 1]; at most 150 dB."""
    return -10 * torch.log10(errors.clamp_min(_FLOOR))


def predictions(predictors: Mapping[str, Predictor], exposure: Exposure) -> tuple[dict[str, Any], dict[str, str]]:
    """What each says, a list with one number an image or ``None``, and the reasons of those that say nothing."""
    told, reasons = dict[str, Any](), dict[str, str]()
    for name, predictor in predictors.items():
        try:
            told[name] = predictor(exposure).tolist()
        except NoDensityError as error:
            told[name], reasons[name] = None, str(error)
    return told, reasons
