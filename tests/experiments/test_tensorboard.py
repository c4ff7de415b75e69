import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from experiments import tensorboard
from experiments.report.rounds import by_round
from fl_sim.core.errors import ConfigError
from tests.experiments import synthetic

REPORT = synthetic.report(defenses=("none",), attacks=("fast",), seeds=(0,))
REPORT = replace(REPORT, pictures=[replace(REPORT.pictures[0], rank="best")])


@dataclass
class Noted:
    """A writer that keeps what it is given."""

    scalars: dict[tuple[str, int], float] = field(default_factory=dict)
    images: dict[str, Any] = field(default_factory=dict)

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.scalars[tag, global_step] = scalar_value

    def add_image(self, tag: str, img_tensor: Any, global_step: int, *, dataformats: str) -> None:
        self.images[tag] = (img_tensor.shape, global_step, dataformats)

    def close(self) -> None:
        pass


def test_events_hold_what_the_summary_says(tmp_path: Path) -> None:
    noted = Noted()
    assert tensorboard.write(REPORT, tmp_path / "events", lambda folder: noted) == 1
    leaked = {row["round"]: row["psnr"]["mean"] for row in by_round(REPORT)}
    assert {step: value for (tag, step), value in noted.scalars.items() if tag == "leakage/fast/psnr"} == leaked
    assert noted.scalars["training/bytes_up", 2] == 2 * 4 * 48_000
    assert ("training/epsilon", 2) not in noted.scalars
    assert noted.images == {"pictures/fast/best": ((8, 26, 1), 1, "HWC")}


def test_tensorboard_itself_reads_them(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tensorboard.write(REPORT, tmp_path / "events")
    events = reader.EventAccumulator(str(tmp_path / "events" / "no defense"))
    events.Reload()
    assert [event.step for event in events.Scalars("leakage/fast/psnr")] == [1, 2, 5, 10]


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    with pytest.raises(ConfigError, match="expected an empty or new folder"):
        tensorboard.write(REPORT, tmp_path)


def test_without_the_package_the_message_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'fl-sim\[tensorboard\]'"):
        tensorboard.write(REPORT, tmp_path / "events")
