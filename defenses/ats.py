"""ATS: images are transformed by a searched policy before any gradient is taken."""

import re
from collections.abc import Sequence
from typing import Annotated, ClassVar, Final, Literal, NamedTuple

import torch
from pydantic import AfterValidator
from torch import Generator, Tensor

from defenses.operations import OPERATIONS, translate_x, translate_y
from fl_sim.core.contracts import DataDefense
from fl_sim.core.errors import FlSimError
from fl_sim.core.part import part
from fl_sim.core.types import Batch

ENTRIES: Final[Sequence[tuple[str, int]]] = (
    *(("invert", 7), ("contrast", 6), ("rotate", 2), ("translateX", 9), ("sharpness", 1)),  # 0 to 4
    *(("sharpness", 3), ("shearY", 2), ("translateY", 2), ("autocontrast", 5), ("equalize", 2)),
    *(("shearY", 5), ("posterize", 5), ("color", 3), ("brightness", 5), ("sharpness", 9)),  # 10 to 14
    *(("brightness", 9), ("equalize", 5), ("equalize", 1), ("contrast", 7), ("sharpness", 5)),
    *(("color", 5), ("translateX", 5), ("equalize", 7), ("autocontrast", 8), ("translateY", 3)),  # 20 to 24
    *(("sharpness", 6), ("brightness", 6), ("color", 8), ("solarize", 0), ("invert", 0)),
    *(("equalize", 0), ("autocontrast", 0), ("equalize", 8), ("equalize", 4), ("color", 5)),  # 30 to 34
    *(("equalize", 5), ("autocontrast", 4), ("solarize", 4), ("brightness", 3), ("color", 0)),
    *(("solarize", 1), ("autocontrast", 0), ("translateY", 3), ("translateY", 3), ("autocontrast", 1)),  # 40 to 44
    *(("solarize", 1), ("equalize", 5), ("invert", 0), ("translateY", 3), ("autocontrast", 1)),
)
"""Operation and level of each entry that a policy may name."""

_CHAIN = r"\d+(-\d+)*"
_PADDING = 8  # a random crop moves an image by up to its side over this: 4 pixels of 32


class Step(NamedTuple):
    """One operation as it was drawn; the sign of its magnitude where that has one."""

    entry: int
    sign: Literal[-1, 1]


class Drawn(NamedTuple):
    """What becomes of one image, in this order.

    Args:
        shift: Pixels its content moves left and up; black comes in.
        flipped: Left to right.
        steps: The policy's operations.
    """

    shift: tuple[int, int] = (0, 0)
    flipped: bool = False
    steps: tuple[Step, ...] = ()


def chains_of(policy: str) -> tuple[tuple[int, ...], ...]:
    """The chains of entries that a policy chooses from; one empty chain for the empty policy.

    Raises:
        ValueError: Not a policy.
    """
    if not re.fullmatch(rf"({_CHAIN}(\+{_CHAIN})*)?", policy):
        raise ValueError(f"expected entries joined by '-' and chains joined by '+', as in '21-13-3+7-4-15': {policy!r}")
    chains = tuple(tuple(map(int, re.findall(r"\d+", chain))) for chain in policy.split("+"))
    if beyond := sorted({entry for chain in chains for entry in chain if entry >= len(ENTRIES)}):
        raise ValueError(f"expected entries from 0 to {len(ENTRIES) - 1}, got {', '.join(map(str, beyond))}")
    return chains


def _checked(policy: str) -> str:
    chains_of(policy)
    return policy


@part
class Ats(DataDefense):
    """Each image is transformed by a chain of operations; arXiv 2011.12505.

    Args:
        policy: Entries of the table above, in their order: ``21-13-3`` moves an image sideways, makes it brighter or
            darker, moves it sideways again. ``A+B``: one of them at random for each image. Empty: no defense.
        crop_and_flip: Before the policy, pad by an eighth of the side with black, crop at random, flip by chance.

    Every operation of the chain is applied, though the table of the paper's search has probabilities; the sign of its
    magnitude is random. The entries are those of the released code (gaow0007/ATSPrivacy, policy.py at 6e64532). There
    images are transformed each time they are read, here once a round; and cropping and flipping precede every policy
    in its training (``mode aug``), with 4 pixels of padding, but not the empty one. Shifts of images of another size
    than 32x32 scale with the side. ``fl-sim search-policy`` finds other policies.

    A reconstruction can at best be the transformed image: ``21-13-3`` blackens 15 or 23 of 32 columns.
    """

    surrogate: ClassVar[str] = "any attack: it finds the transformed image"

    policy: Annotated[str, AfterValidator(_checked)] = "21-13-3+7-4-15"
    crop_and_flip: bool = False

    def transform(self, batch: Batch, rng: Generator) -> Batch:
        images = [transformed(image, drawn) for image, drawn in zip(batch.images, self.draw(batch, rng), strict=True)]
        return Batch(torch.stack(images), batch.labels)

    def draw(self, batch: Batch, rng: Generator) -> list[Drawn]:
        """What becomes of each image, one after the other; depends on their number and size only.

        Raises:
            FlSimError: The images are neither grey nor RGB.
        """
        channels, height, width = batch.images.shape[1:]
        if channels not in (1, 3):
            raise FlSimError(f"ats expects grey or RGB images, got {channels} channels: leave it out of the study")
        return [self._draw(height // _PADDING, width // _PADDING, rng) for _ in batch.labels]

    def _draw(self, down: int, across: int, rng: Generator) -> Drawn:
        shift, flipped = (0, 0), False
        if self.crop_and_flip:
            shift = (_pick(2 * across + 1, rng) - across, _pick(2 * down + 1, rng) - down)
            flipped = bool(_pick(2, rng))
        chains = chains_of(self.policy)
        chain = chains[_pick(len(chains), rng)]
        return Drawn(shift, flipped, tuple(Step(entry, 1 if _pick(2, rng) else -1) for entry in chain))


def transformed(image: Tensor, drawn: Drawn) -> Tensor:
    """``(C, H, W)`` in [0, 1], as before."""
    across, down = drawn.shift
    image = translate_y(translate_x(image, across / image.shape[2]), down / image.shape[1])
    image = image.flip(2) if drawn.flipped else image
    for entry, sign in drawn.steps:
        name, level = ENTRIES[entry]
        operation = OPERATIONS[name]
        magnitude = operation.magnitude(level)
        image = operation.apply(image, sign * magnitude if operation.signed else magnitude)
    return image


def _pick(count: int, rng: Generator) -> int:
    return int(torch.randint(count, (), generator=rng))
