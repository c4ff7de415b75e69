"""The honest-but-curious server."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fl_sim.core import types
from fl_sim.core.errors import ConfigError, RefusedReplyError
from fl_sim.core.types import Observation, Task, Tensors, Update
from fl_sim.federation import wire
from fl_sim.training.local import State

Sink: TypeAlias = Callable[[Observation], None]
View: TypeAlias = Literal["client", "aggregate"]


class ReplyReader(Protocol):
    """What :class:`fl_sim.federation.wire.Reader` and ``StockReader`` do."""

    def update(self, content: RecordDict, broadcast: State) -> Update: ...
    def plain(self, content: RecordDict, update: Update, broadcast: State) -> RecordDict: ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """A reply that was not used, and why."""

    client: int
    reason: str


class Intercept(Strategy):
    """Any strategy, watched: shows ``sink`` what the server could see of each training round, changes nothing.

    Replies that are not what the protocol promises are kept from the inner strategy and named in ``refused``; the round
    goes on. Valid replies reach it sorted by client, so that sums of floats do not depend on who answered first.

    Args:
        inner: The strategy that trains.
        sink: Called once per observation, after a round's replies are in, in the order of clients.
        task: Image shape, classes and normalisation: what an attack has to know.
        protocol: Local training as far as the server knows it.
        reader: How replies are read; the default is a stock Flower app's, which sends weights.
        view: ``client``: every update; ``aggregate``: only their weighted mean, what secure aggregation would show.
        clients: Node id to client number; the default numbers nodes in the order of their ids.

    Raises:
        ConfigError: A task without a mean and a std for each channel.
    """

    def __init__(
        self,
        inner: Strategy,
        sink: Sink,
        *,
        task: Task,
        protocol: types.Protocol | None = None,
        reader: ReplyReader | None = None,
        view: View = "client",
        clients: Mapping[int, int] | None = None,
    ) -> None:
        if not len(task.mean) == len(task.std) == task.image_shape[0]:
            raise ConfigError(
                f"expected {task.image_shape[0]} means and stds, one a channel, got {task.mean, task.std}"
            )
        self._inner, self._sink = inner, sink
        self._task, self._protocol, self._view = task, protocol, view
        self._reader = reader or wire.StockReader()
        self._clients = dict(clients) if clients is not None else None
        self._broadcast = State({}, {})
        self._sent = list[Message]()
        self.refused = list[Refusal]()  # of the last round
        self.accepted = list[int]()  # clients of the last round
        self.bytes_down, self.bytes_up = 0, 0  # of the last round, all clients

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self._broadcast = wire.state_from(arrays)
        self._sent = list(self._inner.configure_train(server_round, arrays, config, grid))
        if self._clients is None:
            self._clients = {node: i for i, node in enumerate(sorted(grid.get_node_ids()))}
        self.bytes_down = sum(wire.size(message.content) for message in self._sent)
        return self._sent

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        ordered = sorted(((self._client_of(r), r) for r in replies), key=lambda pair: pair[0])
        self.refused = [
            Refusal(client, r.error.reason or "no reason given") for client, r in ordered if not r.has_content()
        ]
        self.bytes_up = sum(wire.size(r.content) for _, r in ordered if r.has_content())
        updates, passed_on = dict[int, Update](), list[Message]()
        for client, reply in ordered:
            if not reply.has_content():
                passed_on.append(reply)
            elif (update := self._read(client, reply)) is not None:
                updates[client] = update
                reply.content = self._reader.plain(reply.content, update, self._broadcast)
                passed_on.append(reply)
        self._refuse_silent([client for client, _ in ordered])
        self.accepted = list(updates)
        for observation in self._observations(server_round, updates):
            self._sink(observation)
        return self._inner.aggregate_train(server_round, passed_on)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return self._inner.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return self._inner.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        self._inner.summary()

    def _read(self, client: int, reply: Message) -> Update | None:
        """A reply may hold anything, so any failure to read it is a refusal, with its name."""
        try:
            return self._reader.update(reply.content, self._broadcast)
        except RefusedReplyError as error:
            self.refused.append(Refusal(client, str(error)))
        except Exception as error:
            self.refused.append(Refusal(client, f"cannot be decoded: {type(error).__name__}: {error}"))
        return None

    def _client_of(self, reply: Message) -> int:
        """By node id; a node that died answers through Flower with another's id, so by the message it was sent."""
        node = reply.metadata.src_node_id
        for sent in self._sent:
            if sent.metadata.message_id and sent.metadata.message_id == reply.metadata.reply_to_message_id:
                node = sent.metadata.dst_node_id
        return (self._clients or {}).get(node, -1)

    def _refuse_silent(self, answered: list[int]) -> None:
        asked = {(self._clients or {}).get(m.metadata.dst_node_id, -1) for m in self._sent}
        self.refused += [Refusal(client, "no reply before the timeout") for client in sorted(asked - set(answered))]

    def _observations(self, server_round: int, updates: Mapping[int, Update]) -> list[Observation]:
        if self._view == "aggregate" and updates:
            return [self._observe(server_round, tuple(updates), mean_update(updates))]
        return [self._observe(server_round, (client,), update) for client, update in updates.items()]

    def _observe(self, server_round: int, members: tuple[int, ...], update: Update) -> Observation:
        return Observation(
            round=server_round,
            client=members[0],
            members=members,
            task=self._task,
            broadcast=self._broadcast.weights,
            buffers=self._broadcast.buffers,
            update=update,
            protocol=self._protocol,
        )


def mean_update(updates: Mapping[int, Update]) -> Update:
    """Mean of updates weighted by their examples: all that secure aggregation shows."""
    total = sum(u.num_examples for u in updates.values())
    first = next(iter(updates.values()))

    def mean(trees: list[tuple[Tensors, int]]) -> Tensors:
        return {name: sum((t[name] * (n / total) for t, n in trees), start=0 * v) for name, v in trees[0][0].items()}

    return Update(
        delta=mean([(u.delta, u.num_examples) for u in updates.values()]),
        num_examples=total,
        kind=first.kind,
        buffers=mean([(u.buffers, u.num_examples) for u in updates.values()]),
    )
