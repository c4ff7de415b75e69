"""The client: load, train, defend, reply. Update defenses are Flower mods."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol as Interface
from typing import TypeAlias

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from torch import Generator, nn

from fl_sim.core.contracts import AnyDefense, DataDefense, Defense, GradientDefense
from fl_sim.core.errors import FlSimError
from fl_sim.core.seeds import derive
from fl_sim.core.trees import add, subtract
from fl_sim.core.types import Batch, Protocol, Tensors, Update
from fl_sim.federation import wire
from fl_sim.training.local import Gradient, GradientRule, State, gradient, local_update, single_threaded

Mod: TypeAlias = Callable[[Message, Context, ClientAppCallable], Message]
WHOAMI = "whoami"


class Data(Interface):
    """Where a client's images come from: a function of who and when."""

    def batch(self, client: int, round_: int, size: int | None) -> Batch: ...


class Memory(Interface):
    """Where clients keep what error feedback did not send, by client, place of the defense, and round."""

    def before(self, client: int, place: int, round_: int) -> Tensors:
        """Of the client's last round before ``round_``; empty where there is none."""

    def keep(self, client: int, place: int, round_: int, residual: Tensors) -> None: ...


@dataclass(frozen=True, kw_only=True)
class ClientJob:
    """All that a client needs besides the weights it is sent; small, because Flower pickles it with every message."""

    data: Data
    model: Callable[[], nn.Module]
    protocol: Protocol
    defenses: tuple[AnyDefense, ...]
    seed: int
    memory: Memory | None = None  # needed by defenses with error feedback

    @property
    def update_defenses(self) -> tuple[Defense, ...]:
        """Those that rewrite what is sent, in their order: what the server decodes, and what has a density."""
        return tuple(d for d in self.defenses if isinstance(d, Defense))


Resolve: TypeAlias = Callable[[Message, Context], ClientJob]


def client_app(resolve: Resolve) -> ClientApp:
    """A Flower client whose job is looked up for each message."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        job = resolve(message, context)
        mods = [defense_mod(d, i, job) for i, d in enumerate(job.defenses) if isinstance(d, Defense)]
        run: ClientAppCallable = lambda m, c: undefended(m, c, job)  # noqa: E731
        for mod in [*mods, encode_mod(job.update_defenses)]:
            run = nested(mod, run)
        return run(message, context)

    @app.query(WHOAMI)
    def whoami(message: Message, context: Context) -> Message:
        return Message(RecordDict({wire.ORIGIN: wire.origin(partition_of(context))}), reply_to=message)

    return app


def undefended(message: Message, context: Context, job: ClientJob) -> Message:
    """Train on this round's images; reply with the plain update."""
    client, round_ = partition_of(context), round_of(message)
    start = wire.state_from(message.content.array_records[wire.ARRAYS])
    update, loss = train_once(job, start, client, round_)
    return Message(wire.pack(update, loss, client), reply_to=message)


def train_once(job: ClientJob, start: State, client: int, round_: int) -> tuple[Update, float]:
    """Data defenses, then local training under the gradient defense, if there is one."""
    batch = transformed(job, held(job, client, round_), client, round_)
    order = derive(job.seed, "order", round_, client)
    with single_threaded():
        return local_update(job.model(), start, batch, job.protocol, order, gradient_rule(job, client, round_))


def held(job: ClientJob, client: int, round_: int) -> Batch:
    """The client's own images of a round."""
    return job.data.batch(client, round_, job.protocol.round_size)


def transformed(job: ClientJob, batch: Batch, client: int, round_: int) -> Batch:
    """What a client trains on in place of its own images."""
    for place, defense in enumerate(job.defenses):
        if isinstance(defense, DataDefense):
            batch = defense.transform(batch, derive(job.seed, "defense", round_, client, place))
    return batch


def gradient_rule(job: ClientJob, client: int, round_: int) -> GradientRule:
    """The plain gradient, or that of the job's gradient defense."""
    found = [(i, d) for i, d in enumerate(job.defenses) if isinstance(d, GradientDefense)]
    if not found:
        return gradient
    if len(found) > 1:
        raise FlSimError(f"expected at most one gradient defense, got {[type(d).__name__ for _, d in found]}")
    place, defense = found[0]
    rng = derive(job.seed, "defense", round_, client, place)

    def rule(model: nn.Module, state: State, batch: Batch) -> Gradient:
        tree = defense.gradient(model, state.weights, state.buffers, batch, rng)
        return gradient(model, state, batch)._replace(tree=tree)

    return rule


def defense_mod(defense: Defense, place: int, job: ClientJob) -> Mod:
    """A Flower mod that rewrites the update in a reply.

    Args:
        place: The defense's position in the study's list, which its randomness depends on.
    """

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        client, round_ = partition_of(context), round_of(message)
        rng, update = derive(job.seed, "defense", round_, client, place), wire.packed(reply.content)
        if defense.feedback:
            sent = fed_back(defense, update, rng, job.memory, (client, place, round_))
        else:
            sent = defense.protect(update, rng).update.delta
        reply.content[wire.UPDATE] = wire.to_record(sent)
        return reply

    return mod


def fed_back(
    defense: Defense, update: Update, rng: Generator, memory: Memory | None, place: tuple[int, int, int]
) -> Tensors:
    """Defend the update and what was not sent before; keep what is not sent now."""
    if memory is None:
        raise FlSimError(f"{type(defense).__name__} with error feedback needs a place to keep what it does not send")
    owed = memory.before(*place)
    whole = replace(update, delta=add(update.delta, owed)) if owed else update
    if not all(bool(t.isfinite().all()) for t in whole.delta.values()):
        raise FlSimError("expected a finite update, got NaN or infinity: nothing is sent in this round")
    sent = defense.protect(whole, rng).update.delta
    memory.keep(*place, subtract(whole.delta, sent))
    return sent


def encode_mod(defenses: Sequence[Defense]) -> Mod:
    """The outermost mod: the defended update as its codecs send it."""

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        payload: Tensors = wire.from_record(reply.content.array_records[wire.UPDATE])
        for defense in defenses:
            payload = defense.codec.encode(payload)
        reply.content[wire.UPDATE] = wire.to_record(payload)
        return reply

    return mod


def nested(mod: Mod, inner: ClientAppCallable) -> ClientAppCallable:
    return lambda message, context: mod(message, context, inner)


def partition_of(context: Context) -> int:
    """Which client this is, from 0: Flower's node ids are drawn anew each run."""
    found = context.node_config.get("partition-id")
    if not isinstance(found, int):
        raise FlSimError(f"expected partition-id in the node's config, got {found!r}: start it with --node-config")
    return found


def round_of(message: Message) -> int:
    found = message.content.config_records[wire.CONFIG][wire.ROUND]
    if not isinstance(found, int):
        raise FlSimError(f"expected {wire.ROUND} to be a whole number, got {found!r}")
    return found
