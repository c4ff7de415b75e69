"""What a generator's stages offer to a search, by name and shape."""

from collections.abc import Mapping
from math import prod
from typing import NamedTuple

import torch
from torch import Generator as Draws

from attacks.generators.base import Generator


class Stage(NamedTuple):
    """Before a stage.

    Args:
        shapes: Of an image's searched entries of the state, without the row.
    """

    place: int
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def numel(self) -> Mapping[str, int]:
        """Entries of each, which radii of GIFD's balls are set by."""
        return {name: prod(shape) for name, shape in self.shapes.items()}


@torch.no_grad()
def table(generator: Generator) -> tuple[Stage, ...]:
    """Found by running one image, where the generator's weights are: on the device ``meta`` that costs nothing."""
    device = next(generator.parameters()).device
    state = generator.start(1, torch.zeros(1, generator.classes, device=device), Draws())
    stages = []
    for place in range(generator.depth):
        stages.append(Stage(place, {name: tuple(state[name].shape[1:]) for name in generator.searched(place)}))
        state = generator.stage(place, state)
    return tuple(stages)
