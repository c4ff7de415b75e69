"""A federation small enough to run in a test: four clients, an 8x8 task, any client may misbehave."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from torch import nn

from fl_sim import models
from fl_sim.core.contracts import AnyDefense
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Observation, Protocol
from fl_sim.federation import wire
from fl_sim.federation.client import ClientJob, Memory, client_app, partition_of
from fl_sim.federation.engine import Engine, InProcess
from fl_sim.federation.intercept import Intercept
from fl_sim.federation.server import Round, Schedule, build_strategy, roll_call, train
from fl_sim.training.local import State, state_of
from tests.conftest import TASK

CLIENTS = 4
Misbehave = Callable[[Message], Message]


@dataclass(frozen=True)
class Noise:
    """Random images; as many as asked for."""

    def batch(self, client: int, round_: int, size: int | None) -> Batch:
        rng = derive(0, "data", client, round_)
        count = size or 4
        return Batch(torch.rand(count, *TASK.image_shape, generator=rng), torch.randint(10, (count,), generator=rng))


def small_model() -> nn.Module:
    return models.build("mlp", TASK, 0, widths=[16])


def job(
    protocol: Protocol | None = None, defenses: tuple[AnyDefense, ...] = (), memory: Memory | None = None
) -> ClientJob:
    protocol = protocol or Protocol()
    return ClientJob(data=Noise(), model=small_model, protocol=protocol, defenses=defenses, seed=0, memory=memory)


@dataclass(frozen=True)
class Always:
    """The same job for every message."""

    job: ClientJob

    def __call__(self, message: Message, context: Context) -> ClientJob:
        return self.job


def misbehaving(app: ClientApp, clients: Mapping[int, Misbehave]) -> ClientApp:
    """``app``, but some clients' training replies go through a function first."""
    wrapped = ClientApp()

    @wrapped.train()
    def _(message: Message, context: Context) -> Message:
        reply = app(message, context)
        client = partition_of(context)
        return clients[client](reply) if client in clients else reply

    @wrapped.query("whoami")
    def _whoami(message: Message, context: Context) -> Message:
        return app(message, context)

    return wrapped


@dataclass
class Trained:
    """What a federation left."""

    seen: list[Observation]
    rounds: list[Round]
    state: State


def federate(
    work: ClientJob,
    *,
    rounds: int = 2,
    cohort: int = CLIENTS,
    strategy: str = "FedAvg",
    view: str = "client",
    bad: Mapping[int, Misbehave] | None = None,
    engine: Engine | None = None,
    options: Mapping[str, object] | None = None,
) -> Trained:
    """Run ``rounds`` with an intercepting server."""
    out = Trained([], [], state_of(work.model()))

    def main(grid: Grid) -> None:
        nodes = roll_call(grid, CLIENTS, 60.0)
        spy = Intercept(
            build_strategy(strategy, cohort, options or {}),
            out.seen.append,
            task=TASK,
            protocol=work.protocol,
            reader=wire.Reader(work.update_defenses, work.protocol),
            view="aggregate" if view == "aggregate" else "client",
            clients=nodes,
        )
        schedule = Schedule(
            first=1, last=rounds, clients=CLIENTS, cohort=cohort, seed=0, timeout=60, config={"cell": "x"}
        )
        out.state = train(grid, spy, out.state, nodes, schedule, out.rounds.append)

    (engine or InProcess())(main, misbehaving(client_app(Always(work)), bad or {}), CLIENTS)
    return out
