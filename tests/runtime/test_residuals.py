"""What clients keep from round to round, also when a round is run again."""

from pathlib import Path

import torch

from fl_sim.runtime.residuals import Residuals


def test_a_round_finds_what_the_last_one_before_it_left(tmp_path: Path) -> None:
    kept = Residuals(tmp_path / "clients")
    assert kept.before(0, 1, 1) == {}
    for round_ in (1, 4, 12):  # not chosen in the others
        kept.keep(0, 1, round_, {"w": torch.full((2,), float(round_))})
    assert kept.before(0, 1, 13)["w"].tolist() == [12, 12]
    assert kept.before(0, 1, 12)["w"].tolist() == [4, 4]  # run again after a crash
    assert kept.before(0, 0, 13) == kept.before(1, 1, 13) == {}  # of another defense, of another client


def test_only_three_rounds_are_kept(tmp_path: Path) -> None:
    """A round is run again while the checkpoint before it is the last one, or the one before that."""
    kept = Residuals(tmp_path)
    for round_ in (1, 2, 3, 4):
        kept.keep(0, 0, round_, {"w": torch.zeros(1)})
    kept.keep(1, 0, 1, {"w": torch.zeros(1)})
    left = ["c0000-d0-r0002", "c0000-d0-r0003", "c0000-d0-r0004", "c0001-d0-r0001"]
    assert sorted(path.stem for path in tmp_path.iterdir()) == left
