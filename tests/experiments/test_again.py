"""What a second run does, and what is left to it."""

from pathlib import Path

import pytest
import torch

from experiments import pipeline
from experiments.attack import AttackJob, run_job
from experiments.parts import AttackPart
from experiments.pipeline import Run
from experiments.watch import Silent
from fl_sim.core.errors import ConfigError
from fl_sim.core.types import Observation, Reconstruction
from fl_sim.runtime.cells import CellStore, Key
from fl_sim.runtime.store import RunStore
from fl_sim.training.local import State
from tests.experiments.runs import records, run_tiny
from tests.experiments.studies import TINY


def test_attacks_go_on_without_reading_what_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    run = run_tiny(folder, TINY.replace("[evaluation]", "[runtime]\ntogether = 1\n[evaluation]"))
    read: list[Key] = []
    seen = CellStore._seen

    def noted(place: CellStore, key: Key, sent: State) -> Observation:
        read.append(key)
        return seen(place, key, sent)

    monkeypatch.setattr(CellStore, "_seen", noted)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_ray", lambda _: pytest.fail("Ray was started for nothing"))
        run.attack(Silent())
    assert read == []
    (run.store.cell("defense=none").path / "reconstructions" / "ratio" / "r0002-c0001.safetensors").unlink()
    run.attack(Silent())
    assert read == [Key(2, 1)]
    assert run.finished()


def test_a_round_counts_once_its_observations_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = CellStore.save_observation

    def full(place: CellStore, seen: Observation) -> None:
        if (seen.round, seen.client) == (2, 0):
            raise OSError("disk full")
        save(place, seen)

    with monkeypatch.context() as patch:
        patch.setattr(CellStore, "save_observation", full)
        with pytest.raises(OSError, match="disk full"):
            run_tiny(tmp_path / "run")
    place = RunStore(tmp_path / "run").cell("defense=none")
    assert place.observation_keys() == [Key(1, 0), Key(1, 1)]
    assert place.rounds_done() == 1
    run_tiny(tmp_path / "run")
    run_tiny(tmp_path / "whole")
    assert records(tmp_path / "run") == records(tmp_path / "whole")


def test_observations_of_a_round_are_searched_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By attacks that can; a round that a crash cut short is left to the simulation that will train it again."""
    asked: list[tuple[str, list[int]]] = []
    work = run_job

    def noted(job: AttackJob) -> list[Reconstruction]:
        asked.append((job.label, [seen.client for seen in job.seen]))
        return work(job)

    monkeypatch.setattr("experiments.attack.run_job", noted)
    text = TINY.replace("[evaluation]", "[runtime]\ntogether = 2\n[evaluation]").replace("clients = 2", "clients = 3")
    run = run_tiny(tmp_path / "run", text)
    searches = [clients for label, clients in asked if label != "ratio"]
    assert searches == [[0, 1], [2]] * 4
    assert [clients for label, clients in asked if label == "ratio"] == [[0], [1], [2]] * 4
    place = run.store.cell(run.cells[0].folder)
    label = next(label for label, _ in asked if label != "ratio")
    first, second = place.result(label, Key(2, 0)), place.result(label, Key(2, 1))
    (place.path / "reconstructions" / label / "r0002-c0001.safetensors").unlink()
    asked.clear()
    with RunStore(tmp_path / "run"):
        run.attack(Silent())
    assert asked == [(label, [0, 1])]
    again = place.result(label, Key(2, 1))
    assert isinstance(first, Reconstruction)
    assert isinstance(second, Reconstruction)
    assert isinstance(again, Reconstruction)
    assert torch.equal(second.images, again.images)
    (place.path / "reconstructions" / label / "r0002-c0001.safetensors").unlink()
    monkeypatch.setattr(type(place), "rounds_done", lambda _: 1)
    asked.clear()
    with RunStore(tmp_path / "run"):
        run.attack(Silent())
    assert asked == []


def test_an_attack_can_be_added_to_a_finished_simulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    run_tiny(folder)
    monkeypatch.setattr("experiments.simulate.train", lambda *_: pytest.fail("a finished round was run again"))
    with RunStore(folder) as store:
        pipeline.add_attack(store, AttackPart(name="dlg", steps=5))
        run = pipeline.opened(store, "inline", None)
        run.attack(Silent())
        run.evaluate(Silent())
        assert run.done()[1:] == (24, 0)
        with pytest.raises(ConfigError, match="another label"):
            pipeline.add_attack(store, AttackPart(name="dlg", steps=6))
    assert sum(attack == "dlg" for _, attack, _, _ in records(folder)) == 8


def test_failures_that_are_tried_again_replace_their_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"

    def broken(job: AttackJob) -> list[Reconstruction]:
        raise MemoryError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr("experiments.attack.run_job", broken)
        assert run_tiny(folder).done()[2] == 16
    for cell in (folder / "cells").iterdir():
        RunStore(folder).cell(cell.name).forget_failures()
    assert run_tiny(folder).done()[1:] == (16, 0)
    records_now = list(RunStore(folder).records())
    assert len(records_now) == 16
    assert all(record["outcome"] != "failed" for record in records_now)
