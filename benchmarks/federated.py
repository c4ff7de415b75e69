"""What watching costs a federation, and what attacks beside it cost a run."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
from fl_sim.runtime.cells import record_to
from fl_sim.runtime.store import RunStore

TASK = Task(image_shape=(3, 32, 32), classes=10, mean=(0.5,) * 3, std=(0.25,) * 3)
CLIENTS, ROUNDS, REPEATS = 4, 5, 5
IMAGES, BATCH = 512, 32  # of each client, and of a local step

STUDY: dict[str, Any] = {
    "name": "overlap",
    "data": {"name": "cifar10", "per_client": 32},
    "model": "cnn",
    "federation": {"clients": 4, "rounds": 8, "mode": "fedavg", "batch_size": 16, "local_epochs": 40},
    "adversary": {"rounds": [1, 3, 5, 7], "clients": [0]},
    "attack": [{"name": "inverting_gradients", "steps": 60}],
    "runtime": {"cpus": 1, "actors": 1},
}


def measure() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "start", {"seconds": [round(_help(), 3) for _ in range(REPEATS)]}
    plain, watched = list[float](), list[float]()
    for _ in range(REPEATS):
        plain.append(_rounds(lambda strategy: strategy))
        watched.append(_rounds(_watched))
    yield "watching", {"plain": plain, "watched": watched}
    yield "overlap", {"seconds": [_overlap() for _ in range(2)]}


def _watched(strategy: Strategy) -> Strategy:
    """Everything seen is written to a folder of its own."""
    return Intercept(strategy, record_to(Path(tempfile.mkdtemp(prefix="fl-sim-"))), task=TASK)


def _help() -> float:
    began = time.perf_counter()
    subprocess.run([Path(sys.executable).with_name("fl-sim"), "--help"], check=True, capture_output=True)
    return time.perf_counter() - began


def _rounds(wrap: Callable[[Strategy], Strategy]) -> float:
    """Seconds a round of Flower's own FedAvg on ``cnn``, the start of its actors not counted."""
    found = list[float]()

    def main(grid: Grid) -> None:
        inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=CLIENTS, min_available_nodes=CLIENTS)
        arrays = ArrayRecord(_network().state_dict())
        wrap(inner).start(grid=grid, initial_arrays=arrays, train_config=ConfigRecord({"lr": 0.1}), num_rounds=1)
        began = time.perf_counter()
        wrap(inner).start(grid=grid, initial_arrays=arrays, train_config=ConfigRecord({"lr": 0.1}), num_rounds=ROUNDS)
        found.append((time.perf_counter() - began) / ROUNDS)

    RaySimulation(cpus=2)(main, app, CLIENTS)
    return round(found[0], 4)


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


def _overlap() -> dict[str, float]:
    """Seconds of training alone, of attacks alone, and of both as they run; one processor for each."""
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        study = load_dict(STUDY, "overlap")
        for name, stages in {"apart": ("simulate", "attack"), "together": ("simulate_and_attack",)}.items():
            with RunStore(Path(folder) / name) as store:
                create(store, study, "", "")
                for stage in stages:
                    began = time.perf_counter()
                    getattr(opened(store, "ray", None), stage)(Silent())
                    seconds[stage] = round(time.perf_counter() - began, 2)
    return seconds
