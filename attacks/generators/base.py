"""The contract of a generator: images made stage by stage, so that a search can enter at any of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal, TypeAlias

from torch import Generator as Draws
from torch import Tensor, nn

State: TypeAlias = Mapping[str, Tensor]
"""All that the stages from here on need, by name; each ``(M, *shape)``, a row an image.

``latent`` or ``styles``, ``noise.0`` …: what is drawn; ``feature``: what the last stage made; anything else (a
condition, what has been painted so far) is carried along.
"""

Group: TypeAlias = Literal["latent", "noise", "feature"]


class Generator(nn.Module, ABC):
    """Latents and a class to images, in stages (arXiv 2308.04699: ``G_N o ... o G_0``).

    Rows of a state do not touch each other. Twice differentiable. Weights are no part of a state.

    Args:
        image_shape: ``(C, H, W)`` of what it makes.
        classes: How many it tells apart; 0: none, whatever condition is given.
    """

    image_shape: tuple[int, int, int]
    classes: int

    @property
    @abstractmethod
    def depth(self) -> int:
        """How many stages there are."""

    @abstractmethod
    def start(self, count: int, condition: Tensor, rng: Draws) -> State:
        """The state before the first stage, of ``count`` latents drawn from the law that it was trained on.

        Args:
            condition: Weights of the classes ``(count, classes)``, one-hot as a rule; ignored without classes.
            rng: A CPU generator.
        """

    @abstractmethod
    def stage(self, place: int, state: State) -> State:
        """The state after stage ``place``, from 0."""

    @abstractmethod
    def image(self, state: State) -> Tensor:
        """``(M, C, H, W)`` in [0, 1], of the state after the last stage."""

    def searched(self, place: int) -> tuple[str, ...]:
        """What of the state before a stage GIFD searches there: the latent first, then what the last stage made."""
        return ("feature",) if place else ("latent",)

    def run(self, state: State, start: int, stop: int) -> State:
        """From before stage ``start`` to before stage ``stop``."""
        for place in range(start, stop):
            state = self.stage(place, state)
        return state

    def forward(self, state: State, start: int = 0) -> Tensor:
        """Images of a state before stage ``start``."""
        return self.image(self.run(state, start, self.depth))


def group(name: str) -> Group:
    """Which kind of variable an entry of a state is."""
    if name.startswith("noise"):
        return "noise"
    return "feature" if name == "feature" else "latent"
