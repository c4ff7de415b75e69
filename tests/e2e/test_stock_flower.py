"""Somebody else's Flower app, watched with three lines."""

from pathlib import Path

import torch
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from attacks import ATTACKS
from fl_sim import models
from fl_sim.core.seeds import derive
from fl_sim.federation.engine import InProcess
from fl_sim.metrics.image import psnr
from fl_sim.runtime.cells import CellStore, Key
from tests.e2e.quickstart import client_app, server_app
from tests.e2e.quickstart.task import load_data


def watched(folder: Path) -> Result:
    def wrap(strategy: Strategy) -> Strategy:
        from fl_sim.federation import Intercept, Task
        from fl_sim.runtime.cells import record_to

        task = Task(image_shape=(3, 32, 32), classes=10, mean=(0.5,) * 3, std=(0.5,) * 3)
        return Intercept(strategy, record_to(folder), task=task)

    return run(wrap)


def run(wrap: object) -> Result:
    found = list[Result]()

    def main(grid: Grid) -> None:
        torch.manual_seed(0)
        found.append(server_app.start(grid, wrap))  # type: ignore[arg-type]

    InProcess()(main, client_app.app, 3)
    return found[0]


def test_watching_changes_nothing(tmp_path: Path) -> None:
    plain, spied = run(lambda strategy: strategy), watched(tmp_path)
    assert plain.arrays.keys() == spied.arrays.keys()
    for name in plain.arrays:
        close = torch.from_numpy(plain.arrays[name].numpy()), torch.from_numpy(spied.arrays[name].numpy())
        assert torch.allclose(*close, atol=1e-7)  # sums of floats in another order: random clients against sorted ones
    assert plain.evaluate_metrics_clientapp[2]["eval_acc"] == spied.evaluate_metrics_clientapp[2]["eval_acc"]
    assert len(CellStore(tmp_path).observation_keys()) == 2 * 3


def test_what_was_recorded_gives_the_image_away(tmp_path: Path) -> None:
    """Better than the same attack on another client's update, on a net whose pooling hides much."""
    watched(tmp_path)
    attack = ATTACKS["inverting_gradients"](steps=500, tv=1e-2, cosine="plain")  # better through narrow nets
    guesses = []
    for client in (1, 2):
        seen = CellStore(tmp_path).observation(Key(1, client))
        guesses.append(attack(seen, models.build("tests.e2e.quickstart.task:Net", seen.task, 0), derive(0)))
    truth = load_data(1)[0] * 0.5 + 0.5
    assert [g.labels.tolist() for g in guesses] == [[1], [2]]
    assert psnr(guesses[0].images, truth) > psnr(guesses[1].images, truth) + 4
