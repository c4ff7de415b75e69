"""Somebody else's Flower app, watched with three lines; and what it exported without us, imported."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from attacks import ATTACKS
from fl_sim import models
from fl_sim.core.errors import ConfigError
from fl_sim.core.seeds import derive
from fl_sim.federation.engine import InProcess
from fl_sim.metrics.image import psnr
from fl_sim.runtime.cells import CellStore, Key
from tests.e2e.quickstart import client_app, server_app
from tests.e2e.quickstart.task import load_data
from tests.experiments.command import fl_sim

NET = "tests.e2e.quickstart.task:Net"
TASK = """[task]
image_shape = [3, 32, 32]
classes = 10
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
[protocol]
mode = "fedavg"
learning_rate = 0.1
"""


def watched(folder: Path) -> Result:
    def wrap(strategy: Strategy) -> Strategy:
        from fl_sim.federation import Intercept, Task
        from fl_sim.runtime.cells import record_to

        task = Task(image_shape=(3, 32, 32), classes=10, mean=(0.5,) * 3, std=(0.5,) * 3)
        return Intercept(Exporting(folder), record_to(folder / "seen", model=NET), task=task)

    return run(wrap)


class Exporting(FedAvg):
    """What somebody without fl-sim would have written: lists of arrays, as numpy saves them, before and after."""

    def __init__(self, folder: Path) -> None:
        super().__init__(fraction_evaluate=1.0, min_train_nodes=3, min_available_nodes=3, min_evaluate_nodes=3)
        self._folder = folder

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self._save(f"before{server_round}", arrays)
        self._nodes = sorted(grid.get_node_ids())
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        replies = list(replies)
        for reply in replies:
            client = self._nodes.index(reply.metadata.src_node_id)
            self._save(f"after{server_round}-{client}", reply.content.array_records["arrays"])
        return super().aggregate_train(server_round, replies)

    def _save(self, name: str, arrays: ArrayRecord) -> None:
        np.savez(self._folder / f"{name}.npz", *arrays.to_numpy_ndarrays())


def audit(folder: Path) -> Path:
    """AUDIT.toml of what was exported."""
    rounds = [(number, client) for number in (1, 2) for client in range(3)]
    updates = "".join(
        f"[[updates]]\nround = {r}\nclient = {c}\nexamples = 1\nbefore = 'before{r}.npz'\nafter = 'after{r}-{c}.npz'\n"
        for r, c in rounds
    )
    (folder / "mine.toml").write_text(f"model = '{NET}'\n{TASK}{updates}")
    return folder / "mine.toml"


def run(wrap: object) -> Result:
    found = list[Result]()

    def main(grid: Grid) -> None:
        torch.manual_seed(0)
        found.append(server_app.start(grid, wrap))  # type: ignore[arg-type]

    InProcess()(main, client_app.app, 3)
    return found[0]


def test_a_task_that_does_not_fit_its_images_is_refused() -> None:
    from fl_sim.federation import Intercept, Task

    with pytest.raises(ConfigError, match="expected 3 means and stds, one a channel"):
        Intercept(FedAvg(), print, task=Task(image_shape=(3, 32, 32), classes=10, mean=(0.5,), std=(0.5,)))


def test_watching_changes_nothing(tmp_path: Path) -> None:
    plain, spied = run(lambda strategy: strategy), watched(tmp_path)
    assert plain.arrays.keys() == spied.arrays.keys()
    for name in plain.arrays:
        close = torch.from_numpy(plain.arrays[name].numpy()), torch.from_numpy(spied.arrays[name].numpy())
        assert torch.allclose(*close, atol=1e-7)  # sums of floats in another order: random clients against sorted ones
    assert plain.evaluate_metrics_clientapp[2]["eval_acc"] == spied.evaluate_metrics_clientapp[2]["eval_acc"]
    assert len(CellStore(tmp_path / "seen" / "cells" / "base").observation_keys()) == 2 * 3


def test_what_was_recorded_gives_the_image_away(tmp_path: Path) -> None:
    """Better than the same attack on another client's update, on a net whose pooling hides much."""
    watched(tmp_path)
    attack = ATTACKS["inverting_gradients"](steps=500, tv=1e-2, cosine="plain")  # better through narrow nets
    guesses = []
    for client in (1, 2):
        seen = CellStore(tmp_path / "seen" / "cells" / "base").observation(Key(1, client))
        guesses.append(attack(seen, models.build("tests.e2e.quickstart.task:Net", seen.task, 0), derive(0)))
    truth = load_data(1)[0] * 0.5 + 0.5
    assert [g.labels.tolist() for g in guesses] == [[1], [2]]
    assert psnr(guesses[0].images, truth) > psnr(guesses[1].images, truth) + 4


@pytest.mark.filterwarnings("ignore")  # the command line sends warnings to log.txt
def test_the_folder_it_wrote_is_attacked_judged_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    watched(tmp_path)
    seen = str(tmp_path / "seen")
    assert fl_sim(monkeypatch, "attack", seen, "--attack", "inverting_gradients:steps=5", "--executor", "inline") == 0
    assert fl_sim(monkeypatch, "evaluate", seen) == 0
    assert fl_sim(monkeypatch, "report", seen) == 0
    assert "agreement" in capsys.readouterr().out
    assert "The originals were not given" in (tmp_path / "seen" / "report.html").read_text()


@pytest.mark.filterwarnings("ignore")
def test_an_export_is_imported_as_it_would_have_been_intercepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    watched(tmp_path)
    assert fl_sim(monkeypatch, "import", str(audit(tmp_path)), "--out", str(tmp_path / "run"), "--json") == 0
    findings = {one["diagnosis"]: one["verdict"] for one in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["learning_rate"] == findings["broadcast"] == "fits"
    seen, imported = (CellStore(tmp_path / folder / "cells" / "base") for folder in ("seen", "run"))
    assert imported.observation_keys() == seen.observation_keys()
    for mine, theirs in zip(*(s.observations(s.observation_keys()) for s in (imported, seen)), strict=True):
        assert (mine.task, mine.members, mine.update.num_examples) == (theirs.task, theirs.members, 1)
        assert all(torch.equal(mine.broadcast[name], t) for name, t in theirs.broadcast.items())
        assert all(torch.equal(mine.update.delta[name], t) for name, t in theirs.update.delta.items())
    run = str(tmp_path / "run")
    assert fl_sim(monkeypatch, "attack", run, "--attack", "inverting_gradients:steps=5", "--executor", "inline") == 0
    assert fl_sim(monkeypatch, "evaluate", run) == 0
