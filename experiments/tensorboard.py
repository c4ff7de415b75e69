"""What a report says by round, as TensorBoard's event files."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from experiments.report import Picture, ReportInput, summary
from experiments.report.input import Pixels, Setting, settings
from fl_sim.core.errors import ConfigError


class Writer(Protocol):
    """As ``torch.utils.tensorboard.SummaryWriter``."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...
    def add_image(self, tag: str, img_tensor: Any, global_step: int, *, dataformats: str) -> None: ...
    def close(self) -> None: ...


def write(report: ReportInput, folder: Path, writer: Callable[[str], Writer] | None = None) -> int:
    """Scalars and pictures, a run of TensorBoard's for each setting; returns how many.

    ``leakage/ATTACK/psnr`` (dB, mean of a round's images), ``.../largest``, ``.../control`` and ``.../identified``
    (share); ``training/accuracy``, ``training/bytes_up`` and ``training/epsilon``, up to the round;
    ``pictures/ATTACK/RANK``: the original, what the attack made of it, and of an unrelated gradient, side by side.

    Args:
        writer: Makes one for a folder; ``None``: TensorBoard's own.

    Raises:
        ConfigError: ``folder`` is a file or not empty, or TensorBoard is not installed.
    """
    if folder.is_file() or (folder.exists() and any(folder.iterdir())):
        raise ConfigError(f"expected an empty or new folder, got {folder}: events would mix with others")
    make = writer or _tensorboard()
    told = summary(report)
    for setting in settings(report):
        to = make(str(folder / _safe(setting.label)))
        for tag, value, round_ in _scalars(told, setting.label):
            to.add_scalar(tag, value, round_)
        for tag, image, round_ in _images(report, setting):
            to.add_image(tag, image, round_, dataformats="HWC")
        to.close()
    return len(settings(report))


def _tensorboard() -> Callable[[str], Writer]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "expected the package tensorboard, it is not installed: pip install 'fl-sim[tensorboard]'"
        ) from error
    made: Callable[[str], Writer] = SummaryWriter
    return made


def _safe(label: str) -> str:
    """A folder's name, as TensorBoard shows it."""
    return "".join(c if c.isalnum() or c in "=.,_- ()+" else "-" for c in label)


def _scalars(told: dict[str, Any], setting: str) -> Iterator[tuple[str, float, int]]:
    for row in told["by_round"]:
        if row["setting"] == setting:
            seen, blind = row["identified"], row["controls"]["unrelated_gradient"]
            values = {
                "psnr": row["psnr"]["mean"],
                "largest": row["psnr"]["largest"],
                "control": blind and blind["mean"],
                "identified": seen and seen["count"] / seen["n"],
            }
            yield from _known(f"leakage/{row['attack']}", values, row["round"])
    for row in told["training"]:
        if row["setting"] == setting:
            spent = row["epsilon"] and row["epsilon"]["most"]
            values = {"accuracy": row["accuracy"]["mean"], "bytes_up": row["bytes_up"], "epsilon": spent}
            yield from _known("training", values, row["round"])


def _known(group: str, values: dict[str, float | None], round_: int) -> Iterator[tuple[str, float, int]]:
    yield from ((f"{group}/{name}", value, round_) for name, value in values.items() if value is not None)


def _images(report: ReportInput, setting: Setting) -> Iterator[tuple[str, Pixels, int]]:
    """Of its first seed with pictures; another seed's would have the same names."""
    cell = next((c for c in setting.cells if any(p.cell == c for p in report.pictures)), None)
    for picture in report.pictures:
        if picture.cell == cell:
            yield f"pictures/{picture.attack}/{picture.rank}", _side_by_side(picture), picture.round


def _side_by_side(picture: Picture) -> Pixels:
    """``(H, W', C)``, with a white column between."""
    shown = [p for p in (picture.original, picture.reconstruction, picture.control) if p is not None]
    gap = np.full((shown[0].shape[0], 1, shown[0].shape[2]), 255, np.uint8)
    return np.concatenate([part for p in shown for part in (p, gap)][:-1], axis=1)
