"""What watching costs a federation, and what attacks beside it cost a run."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy
from torch import nn
from torch.nn.functional import cross_entropy

from experiments.config import load_dict
from experiments.pipeline import create, opened
from experiments.watch import Silent
from fl_sim import models
from fl_sim.core.types import Task
from fl_sim.federation import Intercept
from fl_sim.federation.engine import RaySimulation
from fl_sim.runtime.cells import CellStore
from fl_sim.runtime.store import RunStore
from fl_sim.runtime.writer import Writer

TASK = Task(image_shape=(3, 32, 32), classes=10, mean=(0.5,) * 3, std=(0.25,) * 3)
CLIENTS, ROUNDS, REPEATS = 4, 3, 5
PAIRS = 20  # of watched and plain rounds
IMAGES, BATCH = 512, 32  # of each client, and of a local step

STUDY: dict[str, Any] = {
    "name": "overlap",
    "data": {"name": "cifar10", "per_client": 32},
    "model": "cnn",
    "federation": {"clients": 4, "rounds": 8, "mode": "fedavg", "batch_size": 16, "local_epochs": 20},
    "adversary": {"rounds": [1, 3, 5, 7], "clients": [0]},
    "attack": [{"name": "inverting_gradients", "steps": 30}],
    "runtime": {"cpus": 1, "actors": 1},
}
ATTACKED: dict[str, Any] = {
    "name": "actors",
    "data": {"name": "cifar10", "per_client": 1},
    "model": "cnn",
    "federation": {"clients": 16, "rounds": 2, "mode": "fedsgd", "batch_size": 1},
    "adversary": {"rounds": [1, 2]},
    "attack": [{"name": "inverting_gradients", "steps": 200}],
}


def measure() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "start", {"seconds": [round(_help(), 3) for _ in range(REPEATS)]}
    yield "watching", _watching()
    yield "overlap", _in_turns({"apart": lambda: _stages("simulate", "attack"), "together": _together}, REPEATS - 2)
    yield "actors", _in_turns({f"{n}": partial(_attacked, n) for n in (1, 2)}, REPEATS - 2)


def _in_turns(ways: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[Any]]:
    """What each way gives, ``repeats`` times after one that warms up; every other turn begins with the last."""
    found: dict[str, list[Any]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            figure = ways[name]()
            if turn:
                found[name].append(figure)
    return found


Wrap: TypeAlias = Callable[[Strategy], Strategy]
Settle: TypeAlias = Callable[[], None]


@contextmanager
def _plain() -> Iterator[tuple[Wrap, Settle]]:
    yield lambda strategy: strategy, lambda: None


@contextmanager
def _watched() -> Iterator[tuple[Wrap, Settle]]:
    """Everything seen is written to a folder, by the thread that writes a run's files."""
    with tempfile.TemporaryDirectory(prefix="fl-sim-") as folder, Writer() as write:
        place = CellStore(Path(folder))

        def wrap(inner: Strategy) -> Strategy:
            return Intercept(inner, lambda one: write(partial(place.save_observation, one)), task=TASK)

        def written() -> None:
            write.mark()
            write.mark()  # waits for what was given before the last

        yield wrap, written


def _watching() -> dict[str, list[float]]:
    """Seconds a round of Flower's own FedAvg on ``cnn``, watched and not, in turns inside one simulation."""
    found: dict[str, list[float]] = {}

    def main(grid: Grid) -> None:
        found.update(
            _in_turns({"plain": lambda: _rounds(grid, _plain), "watched": lambda: _rounds(grid, _watched)}, PAIRS)
        )

    RaySimulation(cpus=2)(main, app, CLIENTS)
    return found


def _help() -> float:
    began = time.perf_counter()
    subprocess.run([Path(sys.executable).with_name("fl-sim"), "--help"], check=True, capture_output=True)
    return time.perf_counter() - began


def _rounds(grid: Grid, way: Callable[[], AbstractContextManager[tuple[Wrap, Settle]]]) -> float:
    """Seconds a round until it is settled."""
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=CLIENTS, min_available_nodes=CLIENTS)
    arrays, rate = ArrayRecord(_network().state_dict()), ConfigRecord({"lr": 0.1})
    with way() as (wrap, settle):
        began = time.perf_counter()
        wrap(inner).start(grid=grid, initial_arrays=arrays, train_config=rate, num_rounds=ROUNDS)
        settle()
        return round((time.perf_counter() - began) / ROUNDS, 4)


app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One local epoch, as in Flower's quickstart for PyTorch."""
    torch.set_num_threads(1)
    network, rng = _network(), torch.Generator().manual_seed(int(context.node_config["partition-id"]))
    network.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    images, labels = torch.rand(IMAGES, 3, 32, 32, generator=rng), torch.randint(0, 10, (IMAGES,), generator=rng)
    sgd = torch.optim.SGD(network.parameters(), lr=0.1)
    for some, theirs in zip(torch.split(images, BATCH), torch.split(labels, BATCH), strict=True):
        sgd.zero_grad()
        loss = cross_entropy(network(some), theirs)
        loss.backward()  # type: ignore[no-untyped-call]
        sgd.step()
    metrics = MetricRecord({"train_loss": loss.item(), "num-examples": IMAGES})
    return Message(RecordDict({"arrays": ArrayRecord(network.state_dict()), "metrics": metrics}), reply_to=message)


def _network() -> nn.Module:
    return models.build("cnn", TASK, 0)


def _stages(*stages: str, study: Mapping[str, Any] = STUDY) -> dict[str, float]:
    """Seconds of each of a run's stages, in a folder of their own."""
    seconds = {}
    with tempfile.TemporaryDirectory() as folder, RunStore(Path(folder) / "run") as store:
        create(store, load_dict(dict(study), "a study of speed"), "", "")
        for stage in stages:
            began = time.perf_counter()
            getattr(opened(store, "ray", None), stage)(Silent())
            seconds[stage] = round(time.perf_counter() - began, 2)
    return seconds


def _together() -> float:
    """Seconds of training with attacks beside it, one processor for each."""
    return _stages("simulate_and_attack")["simulate_and_attack"]


def _attacked(actors: int) -> float:
    """Seconds of 32 attacks in so many actors, the start of Ray and of the actors included."""
    study = {**ATTACKED, "runtime": {"cpus": 2, "actors": actors}}
    return _stages("simulate", "attack", study=study)["attack"]
