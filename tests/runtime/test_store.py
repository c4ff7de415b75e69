from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fl_sim.core.errors import StoreError
from fl_sim.core.types import Budget, Observation, Outcome, Reconstruction
from fl_sim.runtime.cells import CellStore, Key, record_to
from fl_sim.runtime.store import RunStore
from fl_sim.training.local import State

GUESS = Reconstruction(
    images=torch.rand(1, 1, 8, 8),
    labels=torch.tensor([3]),
    outcome=Outcome.NON_FINITE,
    loss=float("inf"),
    budget=Budget(iterations=7, seconds=0.5, device="cpu"),
)


def test_an_observation_comes_back_whole(tmp_path: Path, seen: Observation) -> None:
    place = CellStore(tmp_path)
    sent = replace(seen, round=12, client=3, members=(3, 4), buffers={"bn.running_mean": torch.ones(2)})
    place.save_observation(sent)
    assert place.observation_keys() == [Key(12, 3)]
    assert place.members(Key(12, 3)) == (3, 4)
    back = place.observation(Key(12, 3))
    assert list(back.broadcast) == list(sent.broadcast)
    assert list(back.update.delta) == list(sent.update.delta)
    assert all(torch.equal(back.update.delta[k], t) for k, t in sent.update.delta.items())
    assert (back.task, back.protocol, back.members) == (sent.task, sent.protocol, sent.members)
    assert back.buffers["bn.running_mean"].tolist() == [1.0, 1.0]


def test_rounds_are_numbered_beyond_four_digits(tmp_path: Path, seen: Observation) -> None:
    place = CellStore(tmp_path)
    for number in (10000, 9):
        place.save_observation(replace(seen, round=number))
    assert [key.round for key in place.observation_keys()] == [9, 10000]


def test_two_trainings_are_not_recorded_in_one_folder(tmp_path: Path, seen: Observation) -> None:
    """The weights of the first would be taken for those that the second's clients started from."""
    record_to(tmp_path, model="mlp")
    record_to(tmp_path, model="mlp")(seen)
    with pytest.raises(StoreError, match="1 observations of an earlier one: record to"):
        record_to(tmp_path, model="mlp")


def test_a_reconstruction_comes_back_whole(tmp_path: Path) -> None:
    place = CellStore(tmp_path)
    place.save_reconstruction("ig", Key(1, 2), GUESS)
    back = place.result("ig", Key(1, 2))
    assert isinstance(back, Reconstruction)
    assert torch.equal(back.images, GUESS.images)
    assert (back.outcome, back.loss, back.budget) == (GUESS.outcome, GUESS.loss, GUESS.budget)


def test_failures_are_results_until_they_are_forgotten(tmp_path: Path) -> None:
    place = CellStore(tmp_path)
    assert not place.attempted("ig", Key(1, 0))
    place.save_failure("ig", Key(1, 0), "no memory")
    assert place.result("ig", Key(1, 0)) == "no memory"
    place.forget_failures()
    assert place.result("ig", Key(1, 0)) is None


def test_a_checkpoint_comes_back_in_order(tmp_path: Path) -> None:
    place = CellStore(tmp_path)
    assert place.checkpoint() is None
    state = State({"z": torch.ones(2), "a": torch.zeros(1)}, {"b": torch.ones(3)})
    place.save_checkpoint(4, state, {"m_t/z": torch.full((2,), 7.0)})
    found = place.checkpoint()
    assert found is not None
    number, back, memory = found
    assert number == 4
    assert list(back.weights) == ["z", "a"]
    assert list(back.buffers) == ["b"]
    assert memory["m_t/z"].tolist() == [7.0, 7.0]


def test_a_round_that_was_run_again_counts_once(tmp_path: Path) -> None:
    place = CellStore(tmp_path)
    for row in ({"round": 0, "x": 1}, {"round": 1, "x": 1}, {"round": 1, "x": 2}):
        place.add_training(row)
    assert place.training() == [{"round": 0, "x": 1}, {"round": 1, "x": 2}]


def test_one_process_holds_a_run(tmp_path: Path) -> None:
    with RunStore(tmp_path), pytest.raises(StoreError, match="in use by process"), RunStore(tmp_path):
        pass
    with RunStore(tmp_path):
        pass


def test_what_is_no_run_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="fl-sim run STUDY"):
        RunStore(tmp_path).about()
