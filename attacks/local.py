"""What an adversary makes of the steps that a client took between the weights it was sent and those it returned."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal, TypeAlias

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import nn

from attacks.gradients import Passes
from attacks.gradients.descent import Descent
from attacks.gradients.stacked import AtGuess
from attacks.problem import at_broadcast, gradient_scale
from attacks.variables import Between, Epochs, Variables
from fl_sim.core.errors import UnmetKnowledgeError
from fl_sim.core.part import part
from fl_sim.core.types import Observation
from fl_sim.training.local import State


class LocalSteps(ABC):
    """A model of local steps: how a guess's update is computed, in the units of a mean gradient."""

    compiles: ClassVar[bool] = False
    """Whether a search's step may be compiled where that is enabled."""

    def check(self, seen: Observation) -> None:
        """Refuse an observation that it is not for, as :meth:`fl_sim.core.contracts.Attack.check` does."""
        del seen

    @abstractmethod
    def passes(self, model: nn.Module, seen: Observation) -> Passes: ...

    def over(self, variables: Variables) -> Variables:
        """What is searched, given what makes the images."""
        return variables


@part
class OneStep(LocalSteps):
    """One gradient at the broadcast weights: exact of one step, else as if it stayed what it is there."""

    compiles: ClassVar[bool] = True

    def passes(self, model: nn.Module, seen: Observation) -> Passes:
        return at_broadcast(model, seen)


@part
class Unrolled(LocalSteps):
    """The client's own protocol, run on the guess and differentiated through (arXiv 2206.12395).

    Momentum, learning rate, the size of batches and their number are the client's; their order is not known, and one
    draw of it stands for all. One step, and FedSGD, is what :class:`OneStep` computes. Defenses inside local steps are
    not simulated.

    Args:
        epochs: ``shared``: the same images in every epoch; ``own``: each has images of its own, which are tied
            together (:class:`attacks.variables.Epochs`) and averaged in the end, as in the source. Priors are then of
            every epoch's images.
        tie: Of epochs that have their own.
        whole: Most steps of which everything is kept for the derivative (:class:`attacks.gradients.descent.Descent`).
    """

    epochs: Literal["shared", "own"] = "shared"
    tie: NonNegativeFloat = 0.1
    whole: PositiveInt = 8

    def check(self, seen: Observation) -> None:
        protocol = seen.protocol
        if protocol is None:
            raise UnmetKnowledgeError(
                "unrolled local steps want the protocol, and this adversary may not know it: set protocol = true in "
                '[adversary], or local = "one_step" or "surrogate"'
            )
        if protocol.sampling == "poisson":
            raise UnmetKnowledgeError(
                "unrolled local steps want batches that divide the images, and which ones a Poisson sample drew is not "
                'known: set sampling = "shuffle", or local = "one_step" or "surrogate"'
            )
        if len(seen.members) > 1:
            raise UnmetKnowledgeError(
                f"unrolled local steps are one client's, and this update is the mean of {len(seen.members)} clients': "
                'set view = "client" in [adversary], or local = "one_step" or "surrogate"'
            )

    def passes(self, model: nn.Module, seen: Observation) -> Passes:
        protocol, images = seen.protocol, seen.update.num_examples
        if protocol is None or protocol.steps(images) == 1:
            return at_broadcast(model, seen)
        scale = gradient_scale(seen)
        assert scale is not None
        state = State(seen.broadcast, seen.buffers)
        return Descent(model, state, seen.task, protocol, images, scale, self.whole)

    def over(self, variables: Variables) -> Variables:
        return Epochs(inner=variables, tie=self.tie) if self.epochs == "own" else variables


@part
class Surrogate(LocalSteps):
    """One gradient at a point between the two weights, which is searched too: SME (arXiv 2306.00127).

    Wants nothing of the protocol. The point starts in the middle, as in the source.

    Args:
        first: Share of the broadcast weights at the start, in [0, 1].
        pace: How far a solver's step of 1 moves that share.
    """

    first: float = Field(default=0.5, ge=0, le=1)
    pace: PositiveFloat = 0.05

    def check(self, seen: Observation) -> None:
        if seen.update.kind == "gradient":
            raise UnmetKnowledgeError(
                "a surrogate is between the weights a client was sent and those it returned, and this update is a "
                'gradient: set mode = "fedavg", or local = "one_step"'
            )

    def passes(self, model: nn.Module, seen: Observation) -> Passes:
        return AtGuess(model, State(seen.broadcast, seen.buffers), seen.task)

    def over(self, variables: Variables) -> Variables:
        return Between(inner=variables, first=self.first, pace=self.pace)


Local: TypeAlias = Literal["one_step", "unrolled", "unrolled_epochs", "surrogate"]
"""What an attack makes of local steps, by name."""

LOCAL: Mapping[Local, LocalSteps] = MappingProxyType(
    {
        "one_step": OneStep(),
        "unrolled": Unrolled(),
        "unrolled_epochs": Unrolled(epochs="own"),
        "surrogate": Surrogate(),
    }
)
