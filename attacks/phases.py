"""What of a generator is searched at a time, and by which solver."""

from abc import ABC, abstractmethod
from copy import deepcopy
from math import prod
from typing import Literal

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Generator as Draws
from torch import nn

from attacks.generators import Generator, State, group
from attacks.generators.staged import Staged
from attacks.solvers import Solver
from attacks.variables.generated import Generated, Inside, Weights
from fl_sim.core.part import part
from fl_sim.core.seeds import derive
from fl_sim.core.types import Tensors

_DRAWS = 32  # of latents, to learn how large a feature is


class Phase(ABC):
    """A search from where the phase before it ended.

    Args:
        solver: How.
        place: The stage of the generator before which it enters; phases ascend.
    """

    solver: Solver
    place: int = 0

    @abstractmethod
    def over(self, generator: Generator, state: State, images: int, rng: Draws) -> Generated:
        """What is searched.

        Args:
            state: Before ``place``; rows are images, trial by trial.
            images: Of each trial.
        """


@part
class Within(Phase):
    """The generator's latents (``place`` 0) or what a stage made of them, and what else it lets be searched there.

    Args:
        feature: Radius of the l1 ball around what the last stage made; ``None``: free.
        drawn: The same of what was drawn: latents, styles, noise.
        relative: Whether radii are shares of the mean l1 norm that the generator's own draws have there.
        penalty: Weight of ``-log p`` of the latents under N(0, I), in nats.
    """

    solver: Solver
    place: NonNegativeInt = 0
    feature: PositiveFloat | None = None
    drawn: PositiveFloat | None = None
    relative: bool = True
    penalty: NonNegativeFloat = 0.0

    def over(self, generator: Generator, state: State, images: int, rng: Draws) -> Inside:
        del rng
        names = generator.searched(self.place)
        wanted = {name: self.feature if group(name) == "feature" else self.drawn for name in names}
        radii = {name: radius for name, radius in wanted.items() if radius is not None}
        if radii and self.relative:
            typical = sizes(generator, self.place, next(iter(state.values())).device)
            radii = {name: radius * typical[name] for name, radius in radii.items()}
        return Inside(
            generator=generator,
            place=self.place,
            state=state,
            images=images,
            names=names,
            radii=radii,
            penalty=self.penalty,
        )


def sizes(generator: Generator, place: int, device: torch.device) -> dict[str, float]:
    """The mean l1 norms of what is before a stage, over draws of the generator's own law and classes at random."""
    rng, classes = derive(0, "sizes"), max(1, generator.classes)
    condition = torch.eye(classes)[torch.randint(classes, (_DRAWS,), generator=rng)][:, : generator.classes]
    with torch.no_grad():
        state = generator.run(generator.start(_DRAWS, condition.to(device), rng), 0, place)
    return {name: v.flatten(1).abs().sum(1).mean().item() for name, v in state.items()}


@part
class Tuning(Phase):
    """The generator's weights.

    Args:
        each: Whose they are: an ``image``'s, or one set for all images of a ``trial``.
        fresh: Begin with untrained weights, other ones for each set.
    """

    solver: Solver
    each: Literal["image", "trial"] = "image"
    fresh: bool = False

    def over(self, generator: Generator, state: State, images: int, rng: Draws) -> Weights:
        rows = len(next(iter(state.values())))
        sets = images if self.each == "image" else 1
        trials = rows // images
        if self.fresh:
            weights = _drawn(generator, trials, sets, rng)
        else:
            weights = {name: w.expand(trials, sets, *w.shape) for name, w in generator.named_parameters()}
        return Weights(generator=generator, state=state, images=images, weights=weights)


def _drawn(generator: Generator, trials: int, sets: int, rng: Draws) -> Tensors:
    """Untrained weights ``(trials, sets, *shape)``; drawn on the CPU, so that they are the same on every device."""
    blank, drawn = deepcopy(generator).cpu(), list[Tensors]()
    for _ in range(trials * sets):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=rng)))
            for module in blank.modules():
                if isinstance(module, (nn.Linear, nn.Conv2d)):
                    module.reset_parameters()
        drawn.append({name: w.clone() for name, w in blank.named_parameters()})
    return {
        name: torch.stack([one[name] for one in drawn]).view(trials, sets, *w.shape).to(w.device)
        for name, w in generator.named_parameters()
    }


@part
class Untrained:
    """A generator that knows nothing, larger than the images (GION, ICCV 2023; code: CI-Net).

    Args:
        latents: Entries of its input, drawn once.
        width: Of features; 0: doubled from 16 until the weights outnumber four times the pixels of a batch.
    """

    latents: NonNegativeInt = 128
    width: NonNegativeInt = 0

    def build(self, image_shape: tuple[int, int, int], images: int) -> Generator:
        width = self.width or 16
        made = Staged(image_shape, 0, self.latents, width)
        wanted = 4 * images * prod(image_shape[1:])
        while not self.width and sum(w.numel() for w in made.parameters()) <= wanted:
            width *= 2
            made = Staged(image_shape, 0, self.latents, width)
        return made.eval().requires_grad_(requires_grad=False)
