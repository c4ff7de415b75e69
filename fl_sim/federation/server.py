"""The server's side of a federation: who is there, who trains, round after round."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp import strategy as strategies
from flwr.serverapp.strategy import Strategy

from fl_sim.core.errors import ConfigError, FlSimError, suggestion
from fl_sim.core.seeds import derive
from fl_sim.core.types import Tensors
from fl_sim.federation import wire
from fl_sim.federation.central import CENTRAL, CentralDp
from fl_sim.federation.client import WHOAMI
from fl_sim.federation.intercept import Intercept, Refusal
from fl_sim.training.local import State

STRATEGIES = (
    *(n for n in strategies.__all__ if n not in {"Result", "Strategy"} and not n.startswith(("Diff", "FedXgb"))),
    CENTRAL,
)
"""Flower's own, by its names, but for those for trees and the other wrappers: with client-side clipping the server has
to be told by its clients, and with adaptive clipping the norm itself needs a share of the guarantee."""


SERVER = -1
"""In the place of a client's number: the server itself."""

_EVERY = 0.2  # seconds between two looks for answers


@dataclass(frozen=True, kw_only=True)
class Round:
    """What happened in one round."""

    number: int
    state: State  # after it
    clients: tuple[int, ...]  # whose updates were used
    refused: tuple[Refusal, ...]
    train_loss: float | None
    bytes_up: int
    bytes_down: int
    seconds: float


OnRound: TypeAlias = Callable[[Round], None]


def build_strategy(name: str, cohort: int, options: Mapping[str, Any], seed: int = 0) -> Strategy:
    """Flower's strategy ``name`` for rounds of ``cohort`` clients; ``options`` are its own arguments.

    Central differential privacy takes ``noise_multiplier``, ``clipping_norm`` and FedAvg's arguments; ``seed`` is that
    of its noise.

    Raises:
        ConfigError: No such strategy, or not its arguments.
    """
    if name not in STRATEGIES:
        raise ConfigError(f"no strategy {name!r}; there are: {', '.join(STRATEGIES)}{suggestion(name, STRATEGIES)}")
    fixed = {"fraction_train": 1.0, "min_train_nodes": cohort, "min_available_nodes": cohort}
    try:
        if name == CENTRAL:
            own = {key: options[key] for key in ("noise_multiplier", "clipping_norm") if key in options}
            fedavg = {**fixed, **{key: value for key, value in options.items() if key not in own}}
            return CentralDp(**own, cohort=cohort, seed=seed, fedavg=fedavg)
        return getattr(strategies, name)(**{**fixed, **options})  # type: ignore[no-any-return]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"strategy {name}: {error}") from error


def roll_call(grid: Grid, clients: int, timeout: float) -> dict[int, int]:
    """Node id to client number, once nodes have answered that hold the first ``clients`` partitions.

    Each is asked as soon as it is there, and again after an error; one that does not answer keeps nobody waiting else.

    Raises:
        FlSimError: Some have not answered within ``timeout`` seconds.
    """
    holds, open_, last, ends = dict[int, int](), dict[str, int](), "", time.monotonic() + timeout
    while (answered := _answered(holds, clients)) < clients:
        there = set(grid.get_node_ids())
        if time.monotonic() > ends:
            raise FlSimError(_short(clients, answered, len(there), timeout, last))
        open_ |= _ask(grid, there - holds.keys() - {*open_.values()})
        for reply in grid.pull_messages(list(open_)) if open_ else ():
            node = open_.pop(reply.metadata.reply_to_message_id)
            if reply.has_content():
                holds[node] = wire.client_of(reply.content)
            else:
                last = f"; the last error: {reply.error.reason}"
        time.sleep(_EVERY if _answered(holds, clients) < clients else 0)
    return {node: client for node, client in holds.items() if client < clients}


def _answered(holds: Mapping[int, int], clients: int) -> int:
    return len({client for client in holds.values() if client < clients})


def _ask(grid: Grid, nodes: Iterable[int]) -> dict[str, int]:
    """The question's id for each node that it was sent to."""
    question = RecordDict({wire.ORIGIN: ConfigRecord()})
    asked = [Message(question, dst_node_id=n, message_type=f"{MessageType.QUERY}.{WHOAMI}") for n in sorted(nodes)]
    sent = set(grid.push_messages(asked)) if asked else set()
    return {m.metadata.message_id: m.metadata.dst_node_id for m in asked if m.metadata.message_id in sent}


def _short(clients: int, answered: int, there: int, timeout: float, last: str) -> str:
    return (
        f"expected {clients} clients, {answered} answered of {there} that are there, within {timeout:g} s{last}: start "
        "the others, or raise runtime.start_timeout where clients start slowly"
    )


def cohort_of(clients: int, size: int, seed: int, round_: int) -> list[int]:
    """Who trains in a round: ``size`` clients, ascending, drawn by the study's seed and not by Flower's."""
    order = torch.randperm(clients, generator=derive(seed, "cohort", round_))
    return sorted(order[:size].tolist())


class CohortGrid(Grid):
    """A grid that shows only some of its nodes, so that any strategy trains exactly these."""

    def __init__(self, grid: Grid, nodes: Iterable[int]) -> None:
        self._grid, self._nodes = grid, list(nodes)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._nodes)

    def set_run(self, run: Any) -> None:
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        return self._grid.run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        return self._grid.create_message(*args, **kwargs)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self._grid.send_and_receive(messages, timeout=timeout)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Which rounds are run, and who takes part.

    Args:
        first, last: Rounds, from 1; both are run.
        clients: Of the federation; ``cohort`` of them train in a round.
        timeout: Seconds a round waits for replies.
        config: Sent with every round's weights.
    """

    first: int
    last: int
    clients: int
    cohort: int
    seed: int
    timeout: float
    config: Mapping[str, str | int | float]


def train(
    grid: Grid, strategy: Intercept, start: State, nodes: Mapping[int, int], schedule: Schedule, on_round: OnRound
) -> State:
    """Run the rounds; a round in which no reply could be used keeps the weights."""
    node_of, state = {client: node for node, client in nodes.items()}, start
    for number in range(schedule.first, schedule.last + 1):
        began = time.monotonic()
        chosen = cohort_of(schedule.clients, schedule.cohort, schedule.seed, number)
        present = CohortGrid(grid, [node_of[client] for client in chosen])
        config = ConfigRecord(dict(schedule.config))
        messages = strategy.configure_train(number, wire.state_record(state), config, present)
        replies = grid.send_and_receive(messages, timeout=schedule.timeout)
        arrays, metrics = strategy.aggregate_train(number, replies)
        state = state if arrays is None else _usable(_as_float32(arrays), state, strategy)
        loss = None if metrics is None or wire.LOSS not in metrics else float(metrics[wire.LOSS])  # type: ignore[arg-type]
        on_round(_round(number, state, strategy, loss, time.monotonic() - began))
    return state


def _round(number: int, state: State, strategy: Intercept, loss: float | None, seconds: float) -> Round:
    return Round(
        number=number,
        state=state,
        clients=tuple(strategy.accepted),
        refused=tuple(strategy.refused),
        train_loss=loss,
        bytes_up=strategy.bytes_up,
        bytes_down=strategy.bytes_down,
        seconds=seconds,
    )


def _usable(after: State, before: State, strategy: Intercept) -> State:
    """Diverged weights are not sent out again: the round is noted, and the weights stay as they were."""
    if all(bool(t.isfinite().all()) for t in after.weights.values()):
        return after
    strategy.refused.append(Refusal(SERVER, "the aggregate has NaN or infinity: weights kept; lower the learning rate"))
    return before


def _as_float32(arrays: ArrayRecord) -> State:
    """Some strategies compute in float64; weights travel in float32."""
    state = wire.state_from(arrays)
    return State({k: t.float() for k, t in state.weights.items()}, {k: t.float() for k, t in state.buffers.items()})


def memory_of(strategy: Strategy) -> Tensors:
    """A strategy's own arrays (momentum and the like), by attribute, so that a run can go on after a crash."""
    kept = dict[str, torch.Tensor]()
    for attribute, value in vars(strategy).items():
        if isinstance(value, dict) and value and all(isinstance(v, np.ndarray) for v in value.values()):
            kept |= {f"{attribute}/{name}": torch.from_numpy(v.copy()) for name, v in value.items()}
        elif isinstance(value, list) and value and all(isinstance(v, np.ndarray) for v in value):
            kept |= {f"{attribute}#{i:06d}": torch.from_numpy(v.copy()) for i, v in enumerate(value)}
    return kept


def recall(strategy: Strategy, memory: Tensors) -> None:
    """The inverse of :func:`memory_of`, on a fresh strategy of the same kind."""
    for attribute in {key.partition("/")[0] for key in memory if "/" in key}:
        found = {k.partition("/")[2]: t.numpy() for k, t in memory.items() if k.startswith(f"{attribute}/")}
        setattr(strategy, attribute, found)
    for attribute in {key.partition("#")[0] for key in memory if "/" not in key}:
        found_list = [memory[k].numpy() for k in sorted(memory) if k.startswith(f"{attribute}#")]
        setattr(strategy, attribute, found_list)
