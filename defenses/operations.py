"""The image operations of AutoAugment that ATS uses, on one image ``(C, H, W)`` in [0, 1]; C is 1 or 3.

As the released code (gaow0007/ATSPrivacy, autoaugment.py at e26a2a3) has them, which calls Pillow. Pillow rounds to
bytes after each operation; here numbers stay real: of an image of bytes, one operation comes within 1.5 levels of its
result. Pixels are taken where Pillow takes them. Magnitudes are the released code's, shares of the side for shifts.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

_BLACK, _GREY = 0.0, 128 / 255
_LUMA = (0.299, 0.587, 0.114)


class Operation(NamedTuple):
    """What is done, and how strongly at levels 0 and 9; linear between. ``signed``: the sign is drawn."""

    apply: Callable[[Tensor, float], Tensor]
    weakest: float = 0.0
    strongest: float = 0.0
    signed: bool = False

    def magnitude(self, level: int) -> float:
        return self.weakest + (self.strongest - self.weakest) * level / 9


def translate_x(image: Tensor, by: float) -> Tensor:
    """Content moves left by the share ``by`` of the width, to whole pixels; black comes in."""
    column, row = _grid(image)
    return _picked(image, column + by * image.shape[2], row, _BLACK)


def translate_y(image: Tensor, by: float) -> Tensor:
    """Content moves up by the share ``by`` of the height, to whole pixels; black comes in."""
    column, row = _grid(image)
    return _picked(image, column, row + by * image.shape[1], _BLACK)


def rotate(image: Tensor, degrees: float) -> Tensor:
    """Counterclockwise about the middle, nearest pixels; the corners are grey, not black, as in the released code."""
    turn, (height, width) = math.radians(degrees), image.shape[1:]
    column, row = _grid(image)
    right, down = column - width / 2, row - height / 2
    across = math.cos(turn) * right - math.sin(turn) * down + width / 2
    return _picked(image, across, math.sin(turn) * right + math.cos(turn) * down + height / 2, _GREY)


def shear_y(image: Tensor, by: float) -> Tensor:
    """Column ``x`` moves up by ``by * x`` pixels: cubic interpolation (a = -1), the edge repeated, black outside."""
    height, width = image.shape[1:]
    column, row = _grid(image)
    source = row + by * column
    first = (source - 0.5).floor()
    d = source - 0.5 - first
    weights = (-d + 2 * d**2 - d**3, 1 - 2 * d**2 + d**3, d + d**2 - d**3, d**3 - d**2)
    across = torch.arange(width, device=image.device)
    rows = [(first + k).long().clamp(0, height - 1) for k in (-1, 0, 1, 2)]
    found = torch.stack([w.to(image) * image[:, r, across] for w, r in zip(weights, rows, strict=True)]).sum(0)
    return torch.where((source >= 0) & (source < height), found.clamp(0, 1), _BLACK)


def brightness(image: Tensor, change: float) -> Tensor:
    return _blended(torch.zeros_like(image), image, change)


def contrast(image: Tensor, change: float) -> Tensor:
    """Away from the mean luminance, or towards it."""
    return _blended(_luminance(image).mean(), image, change)


def color(image: Tensor, change: float) -> Tensor:
    """Saturation; a grey image stays."""
    return _blended(_luminance(image), image, change)


def sharpness(image: Tensor, change: float) -> Tensor:
    """Away from a 3x3 smoothing of weights 1, in the middle 5; the outermost pixels stay."""
    smooth = image.clone()
    smooth[:, 1:-1, 1:-1] = ((9 * avg_pool2d(image, 3, 1, 1) + 4 * image) / 13)[:, 1:-1, 1:-1]
    return _blended(smooth, image, change)


def autocontrast(image: Tensor, _: float) -> Tensor:
    """Each channel's values stretched to [0, 1]."""
    low, high = image.amin((1, 2), keepdim=True), image.amax((1, 2), keepdim=True)
    return torch.where(high > low, (image - low) / (high - low).clamp_min(1e-12), image)


def equalize(image: Tensor, _: float) -> Tensor:
    """Each channel's histogram of 256 levels made even; one with few pixels beside its highest level stays."""
    return torch.stack([_equalized(channel) for channel in image])


def posterize(image: Tensor, bits: float) -> Tensor:
    """Only the highest of 8 bits stay, as many as ``bits`` rounds to."""
    step = 2.0 ** (8 - round(bits))
    return (_levels(image) / step).floor() * step / 255


def solarize(image: Tensor, threshold: float) -> Tensor:
    """Inverted from ``threshold`` on, of 255."""
    return torch.where(_levels(image) < threshold, image, 1 - image)


def invert(image: Tensor, _: float) -> Tensor:
    return 1 - image


OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType(
    {
        "autocontrast": Operation(autocontrast),
        "brightness": Operation(brightness, 0, 0.5, signed=True),
        "color": Operation(color, 0, 0.5, signed=True),
        "contrast": Operation(contrast, 0, 0.5, signed=True),
        "equalize": Operation(equalize),
        "invert": Operation(invert),
        "posterize": Operation(posterize, 8, 4),
        "rotate": Operation(rotate, 0, 30),
        "sharpness": Operation(sharpness, 0, 0.5, signed=True),
        "shearY": Operation(shear_y, 0, 0.3, signed=True),
        "solarize": Operation(solarize, 256, 0),
        "translateX": Operation(translate_x, 0, 150 / 331, signed=True),
        "translateY": Operation(translate_y, 0, 150 / 331, signed=True),
    }
)


def _grid(image: Tensor) -> tuple[Tensor, Tensor]:
    """The middle of each pixel, columns ``(1, W)`` and rows ``(H, 1)``, in pixels from the upper left corner."""
    height, width = image.shape[1:]
    rows = torch.arange(height, dtype=torch.float64, device=image.device)
    columns = torch.arange(width, dtype=torch.float64, device=image.device)
    return columns[None] + 0.5, rows[:, None] + 0.5


def _picked(image: Tensor, column: Tensor, row: Tensor, fill: float) -> Tensor:
    """Each pixel from the one where ``(column, row)`` lies; ``fill`` where that is outside."""
    height, width = image.shape[1:]
    across, down = column.floor().long(), row.floor().long()
    inside = (across >= 0) & (across < width) & (down >= 0) & (down < height)
    return torch.where(inside, image[:, down.clamp(0, height - 1), across.clamp(0, width - 1)], fill)


def _blended(plain: Tensor, image: Tensor, change: float) -> Tensor:
    """``1 + change`` times as far from ``plain`` as before."""
    return (plain + (1 + change) * (image - plain)).clamp(0, 1)


def _luminance(image: Tensor) -> Tensor:
    """``(1, H, W)``; a grey image's own values."""
    return image if len(image) == 1 else (image * image.new_tensor(_LUMA)[:, None, None]).sum(0, keepdim=True)


def _levels(image: Tensor) -> Tensor:
    """The nearest of the levels 0 to 255, in the image's own type."""
    return (image * 255).round()


def _equalized(channel: Tensor) -> Tensor:
    levels = _levels(channel).long()
    counts = levels.reshape(-1).bincount(minlength=256)
    step = int(counts.sum() - counts[counts.nonzero()[-1]]) // 255
    if not step:
        return channel
    table = (counts.cumsum(0) - counts + step // 2) // step
    return table.clamp_max(255)[levels].to(channel) / 255
