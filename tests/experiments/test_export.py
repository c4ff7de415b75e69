import csv
from collections.abc import Callable
from math import isclose
from pathlib import Path

import pytest
from pyarrow import parquet

from experiments.export import rows
from tests.experiments.command import fl_sim
from tests.experiments.studies import TINY

pytestmark = pytest.mark.filterwarnings("ignore")  # the command line sends warnings to log.txt
RECORD = {
    **dict.fromkeys(("study", "cell", "defense", "attack", "outcome", "device"), "x"),
    **dict.fromkeys(("seed", "round", "client", "iterations", "candidates"), 1),
    **dict.fromkeys(("delta", "label_accuracy", "loss", "seconds"), 0.5),
    "axes": {"defense": "x"}, "reason": None, "psnr": [10.0, 20.0], "ssim": [0.1, 0.2], "lpips": None,
    "mse": [0.1, 0.01], "distance": [2.0, 1.0], "identification_rank": [3, 1],
    "controls": {"mean_image": {"psnr": [5.0, 6.0]}, "unrelated_gradient": None},
    "image_ids": [7, 9], "rounds": [1, 2],
    "trained": {"psnr": [11.0, 21.0], "ssim": None, "lpips": None}, "predicted": {"k15": [9.0, 19.0], "snr": None},
}  # fmt: skip


def test_a_record_is_a_row_an_image_with_what_its_round_cost() -> None:
    first, second = rows(RECORD, {("x", 1): {"accuracy": 0.75, "bytes_up": 8}})
    assert (first["image"], second["image"]) == (0, 1)
    assert (second["psnr"], second["control.mean_image.psnr"], second["trained.psnr"]) == (20.0, 6.0, 21.0)
    assert (second["predicted.k15"], second["predicted.snr"]) == (19.0, None)
    assert (second["lpips"], second["trained.ssim"], second["identification_rank"]) == (None, None, 1)
    assert (second["accuracy"], second["bytes_up"]) == (0.75, 8)
    assert (second["image_id"], second["rounds"]) == ("9", 2)


def test_older_records_do_not_say_which_image_it_is() -> None:
    older = {key: value for key, value in RECORD.items() if key not in {"image_ids", "rounds"}}
    assert [(row["image_id"], row["rounds"]) for row in rows(older, {})] == [(None, 1), (None, 1)]


def test_an_attack_that_made_no_image_is_a_row_without_figures() -> None:
    failed = {**RECORD, **dict.fromkeys(("psnr", "ssim", "mse", "distance", "controls", "trained"), None)}
    (row,) = rows({**failed, "identification_rank": None, "reason": "no memory"}, {})
    assert (row["psnr"], row["reason"]) == (None, "no memory")


def test_both_formats_hold_the_records(
    tmp_path: Path,
    study_file: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, study = str(tmp_path / "run"), str(study_file(TINY))
    assert fl_sim(monkeypatch, "run", study, "--out", run, "--executor", "inline") == 0
    for name in ("r.parquet", "r.csv"):
        assert fl_sim(monkeypatch, "export", run, str(tmp_path / name)) == 0
    assert fl_sim(monkeypatch, "export", run, str(tmp_path / "r.xlsx")) == 2
    assert "ends in .parquet or .csv, got r.xlsx" in capsys.readouterr().err
    table = parquet.read_table(tmp_path / "r.parquet").to_pylist()
    with (tmp_path / "r.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(table) == len(lines) == 16
    assert all(isclose(row["psnr"], float(line["psnr"]), rel_tol=1e-6) for row, line in zip(table, lines, strict=True))
    assert {row["axis.defense"] for row in table} == {row["defense"] for row in table}
