"""Stages, in this process: what each leaves, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch

from attacks.analytic.ratio import Ratio
from experiments import config, pipeline
from experiments.config import Study
from experiments.parts import AttackPart
from experiments.watch import Silent
from fl_sim.core.errors import StoreError
from fl_sim.core.types import Reconstruction
from fl_sim.runtime.cells import Key
from fl_sim.runtime.store import RunStore
from tests.experiments.runs import records, run_tiny
from tests.experiments.studies import TINY


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that no test changes."""
    folder = tmp_path_factory.mktemp("done") / "run"
    torch.set_num_threads(1)
    run_tiny(folder)
    return folder


def test_a_study_leaves_everything(done: Path) -> None:
    found = records(done)
    assert len(found) == 2 * 2 * 2 * 2  # cells, rounds, clients, attacks
    exact = found["defense=none", "ratio", 1, 0]
    assert exact["psnr"][0] > 90
    assert exact["identification_rank"] == [1]
    assert exact["label_accuracy"] == 1.0
    assert exact["controls"]["unrelated_gradient"]["psnr"][0] < 40
    assert found["defense=gaussian(std=0.1)", "ratio", 1, 0]["psnr"][0] < 40
    assert (done / "report.html").read_text().count("<svg") > 1
    assert json.loads((done / "summary.json").read_text())["rows"]


def test_a_record_carries_what_it_rests_on(done: Path) -> None:
    needed = {
        "study",
        "cell",
        "round",
        "client",
        "attack",
        "defense",
        "seed",
        "outcome",
        "psnr",
        "ssim",
        "lpips",
        "mse",
        "distance",
        "delta",
    }
    needed |= {
        "label_accuracy",
        "identification_rank",
        "controls",
        "loss",
        "iterations",
        "seconds",
        "device",
        "versions",
    }
    for record in records(done).values():
        assert needed <= set(record)
        assert all(isinstance(record[name], list) for name in ("psnr", "ssim", "mse", "identification_rank"))
        assert record["lpips"] is None
        assert "switched off" in record["notes"]["lpips"]
        assert len(record["gifd"]["ssim"]) == len(record["ssim"])
        assert record["gifd"]["lpips"] is None


def test_training_is_told_round_by_round(done: Path) -> None:
    rows = RunStore(done).cell("defense=none").training()
    assert [row["round"] for row in rows] == [0, 1, 2]
    assert all(0 <= row["accuracy"] <= 1 for row in rows)
    assert rows[0]["bytes_up"] == 0 < rows[1]["bytes_up"]
    assert rows[1]["clients"] == [0, 1]
    assert [row["images"] for row in rows] == [0, 2, 2]
    assert rows[1]["refused"] == []


def test_a_finished_run_does_nothing_again(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (done / "records.jsonl").read_bytes()
    monkeypatch.setattr("experiments.attack.run_job", lambda job: pytest.fail("a finished job was done again"))
    monkeypatch.setattr("experiments.simulate.train", lambda *_: pytest.fail("a finished round was run again"))
    run_tiny(done)
    assert (done / "records.jsonl").read_bytes() == before


def test_a_cell_without_attacks_stops_nobody(tmp_path: Path) -> None:
    text = TINY.replace('name = "ratio"', 'name = "ratio"\nonly = ["none"]').replace("30", '30\nonly = ["none"]')
    assert text.count("only") == 2
    assert run_tiny(tmp_path / "run", text).finished()


def test_two_runs_are_equal_to_the_bit(done: Path, tmp_path: Path) -> None:
    run_tiny(tmp_path / "again")
    assert records(tmp_path / "again") == records(done)
    for cell in (done / "cells").iterdir():
        twin = RunStore(tmp_path / "again").cell(cell.name)
        for key in twin.observation_keys():
            mine, theirs = RunStore(done).cell(cell.name).observation(key), twin.observation(key)
            assert all(torch.equal(mine.update.delta[k], theirs.update.delta[k]) for k in mine.update.delta)


def test_a_lost_stage_is_made_again_and_is_the_same(done: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = run_tiny(folder)
    place = run.store.cell("defense=none")
    before = place.result("ratio", Key(2, 1))
    (folder / "cells" / "defense=none" / "reconstructions" / "ratio" / "r0002-c0001.safetensors").unlink()
    (folder / "cells" / "defense=none" / "checkpoint.safetensors").unlink()
    (folder / "records.jsonl").write_text(
        "\n".join((folder / "records.jsonl").read_text().splitlines()[:3]) + '\n{"torn'
    )
    run_tiny(folder)
    after = place.result("ratio", Key(2, 1))
    assert isinstance(before, Reconstruction)
    assert isinstance(after, Reconstruction)
    assert torch.equal(before.images, after.images)
    assert records(folder) == records(done)


def test_another_study_is_refused_by_what_differs(done: Path) -> None:
    other = done.parent / "other.toml"
    other.write_text(TINY.replace("rounds = 2", "rounds = 3"))
    with pytest.raises(StoreError, match=r"differs in federation.*--fresh"):
        pipeline.create(RunStore(done), config.load(other), "", "test")


def test_a_file_that_changed_since_the_run_began_is_refused(tmp_path: Path) -> None:
    start = tmp_path / "start.npy"
    start.write_bytes(b"one")
    part = AttackPart(name="inverting_gradients", steps=3, init="image", image=str(start))
    study = Study(name="t", attacks=[part])
    store = RunStore(tmp_path / "run")
    pipeline.create(store, study, "?", "fl-sim run t")
    pipeline.create(store, study, "?", "fl-sim run t")
    start.write_bytes(b"two")
    with pytest.raises(StoreError, match=r"start\.npy as it was when .*another file now.*--fresh"):
        pipeline.create(store, study, "?", "fl-sim run t")


def test_a_failed_job_is_a_record_with_its_reason_and_no_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Reconstruction:
        raise MemoryError("no memory")

    folder = tmp_path / "run"
    monkeypatch.setattr(Ratio, "_reconstruct", broken)
    run = run_tiny(folder, TINY)
    failed = [r for r in records(folder).values() if r["outcome"] == "failed"]
    assert len(failed) == 8
    assert all("no memory" in r["reason"] and r["psnr"] is None for r in failed)
    assert run.done()[2] == 8


def test_nothing_is_judged_before_its_controls_are_there(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = run_tiny(folder)
    (folder / "records.jsonl").unlink()
    missing = folder / "cells" / "defense=none" / "reconstructions" / "ratio" / "r0001-c0001.safetensors"
    missing.unlink()
    run.evaluate(Silent())
    assert not [r for r in run.store.records() if (r["cell"], r["attack"]) == ("defense=none", "ratio")]
    assert len(list(run.store.records())) == 12


def test_a_control_shares_no_image_with_what_it_is_held_against(tmp_path: Path) -> None:
    """Under FedAvg a client uses the same images in each round: another round of it is no control."""
    text = TINY.replace("clients = 2", 'clients = 1\nmode = "fedavg"').replace(
        "[evaluation]", "[data]\nper_client = 1\n[evaluation]"
    )
    run_tiny(tmp_path / "run", text)
    assert all(r["controls"]["unrelated_gradient"] is None for r in records(tmp_path / "run").values())


def test_granted_labels_and_an_aggregate_view(tmp_path: Path) -> None:
    text = TINY + '[adversary]\nlabels = true\nview = "aggregate"\nrounds = [2]\ndefense = "parameters"\n'
    run_tiny(tmp_path / "run", text)
    found = records(tmp_path / "run")
    assert {(r["round"], tuple(r["members"])) for r in found.values()} == {(2, (0, 1))}
    assert all(len(r["psnr"]) == 2 and r["label_accuracy"] == 1.0 for r in found.values())
