"""Our nouns as Flower records, and back. The only place that knows the record keys.

A defended reply holds ``update`` (what the last codec made), ``buffers`` where batch norm trains, ``metrics`` and
``origin``; a stock Flower reply holds new weights under ``arrays`` and ``metrics``. What a strategy averages is always
the second form.
"""

from collections.abc import Sequence

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_to_proto
from flwr.common.typing import NDArray

from fl_sim.core.contracts import Defense
from fl_sim.core.errors import RefusedReplyError
from fl_sim.core.trees import add
from fl_sim.core.types import Protocol, Tensors, Update, UpdateKind
from fl_sim.training.local import State

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"  # Flower's names
UPDATE, BUFFERS, ORIGIN = "update", "buffers", "origin"  # ours
NUM_EXAMPLES, LOSS, CLIENT, KIND = "num-examples", "loss", "client", "kind"
ROUND, CELL = "server-round", "cell"
_RAW = "bytes"  # how an array of ours is serialised
_STATISTICS, _COUNTERS = ("running_mean", "running_var"), ("num_batches_tracked",)


def to_record(tensors: Tensors) -> ArrayRecord:
    """Between our own clients and server: bytes alone, without the header that numpy's format has beside Flower's."""
    arrays = {name: t.detach().cpu().contiguous().numpy() for name, t in tensors.items()}
    return ArrayRecord({name: Array(str(a.dtype), a.shape, _RAW, a.tobytes()) for name, a in arrays.items()})


def from_record(record: ArrayRecord) -> dict[str, torch.Tensor]:
    """Copies in torch's own memory: how it is aligned decides the last bit of sums."""
    return {name: torch.from_numpy(_read(array)).clone() for name, array in record.items()}


def _read(array: Array) -> NDArray:
    if array.stype != _RAW:
        return array.numpy()
    return np.frombuffer(bytearray(array.data), dtype=array.dtype).reshape(array.shape)


def state_record(state: State) -> ArrayRecord:
    """As Flower's strategies read it."""
    arrays = {**state.weights, **state.buffers}
    return ArrayRecord({name: Array(t.detach().cpu().numpy()) for name, t in arrays.items()})


def state_from(record: ArrayRecord) -> State:
    """Weights and batch-norm statistics, told apart by PyTorch's names; counters are left out."""
    tensors = from_record(record)
    buffers = {name: t for name, t in tensors.items() if name.endswith(_STATISTICS)}
    weights = {name: t for name, t in tensors.items() if name not in buffers and not name.endswith(_COUNTERS)}
    return State(weights, buffers)


def pack(update: Update, loss: float, client: int) -> RecordDict:
    """A reply before any defense."""
    content = RecordDict()
    content[UPDATE] = to_record(update.delta)
    content[METRICS] = MetricRecord({NUM_EXAMPLES: update.num_examples, LOSS: loss})
    content[ORIGIN] = ConfigRecord({CLIENT: client, KIND: update.kind})
    if update.buffers:
        content[BUFFERS] = to_record(update.buffers)
    return content


def packed(content: RecordDict) -> Update:
    """The inverse of :func:`pack`, on the client, between its defenses."""
    kind: UpdateKind = "delta" if content.config_records[ORIGIN][KIND] == "delta" else "gradient"
    return Update(
        delta=from_record(content.array_records[UPDATE]),
        num_examples=num_examples(content),
        kind=kind,
        buffers=from_record(content.array_records[BUFFERS]) if BUFFERS in content else {},
    )


def origin(client: int) -> ConfigRecord:
    return ConfigRecord({CLIENT: client})


def client_of(content: RecordDict) -> int:
    """Which client says it sent this."""
    found = content.config_records[ORIGIN][CLIENT]
    if not isinstance(found, int):
        raise RefusedReplyError(f"expected {CLIENT} to be a whole number, got {found!r}")
    return found


def num_examples(content: RecordDict) -> int:
    found = content.metric_records[METRICS][NUM_EXAMPLES]
    if not isinstance(found, int) or found < 1:
        raise RefusedReplyError(f"expected {NUM_EXAMPLES} to be a whole number from 1, got {found!r}")
    return found


def unpack(
    content: RecordDict, broadcast: State, defenses: Sequence[Defense], kind: UpdateKind, *, batchnorm: bool = False
) -> Update:
    """A defended reply as an update: decoded, complete and finite.

    Raises:
        RefusedReplyError: It is not what :func:`pack` and the defenses' codecs make.
    """
    if missing := ({UPDATE, METRICS} | ({BUFFERS} if batchnorm else set())) - set(content):
        raise RefusedReplyError(f"expected the records {sorted(missing)} too, got {sorted(content)}")
    payload: Tensors = from_record(content.array_records[UPDATE])
    for defense in reversed(defenses):
        payload = defense.codec.decode(payload, broadcast.weights)
    buffers = from_record(content.array_records[BUFFERS]) if batchnorm else {}
    return Update(
        delta=checked(payload, broadcast.weights),
        num_examples=num_examples(content),
        kind=kind,
        buffers=checked(buffers, broadcast.buffers) if batchnorm else {},
    )


def checked(tensors: Tensors, like: Tensors) -> Tensors:
    """``tensors`` in the order of ``like``.

    Raises:
        RefusedReplyError: A name, shape, dtype or value is not as expected.
    """
    if missing := sorted(set(like) - set(tensors)):
        raise RefusedReplyError(f"expected the tensors {missing} too, got {sorted(tensors)}")
    if extra := sorted(set(tensors) - set(like)):
        raise RefusedReplyError(f"expected no tensors but {sorted(like)}, got {extra} as well")
    for name, expected in like.items():
        got = tensors[name]
        if got.shape != expected.shape or got.dtype != expected.dtype:
            raise RefusedReplyError(
                f"expected {name} to be {expected.dtype} {tuple(expected.shape)}, got {got.dtype} {tuple(got.shape)}"
            )
        if not bool(got.isfinite().all()):
            raise RefusedReplyError(f"expected finite numbers in {name}, got NaN or infinity")
    return {name: tensors[name] for name in like}


def plain(update: Update, broadcast: State, metrics: MetricRecord, learning_rate: float) -> RecordDict:
    """What a strategy averages: the weights after this update (after one SGD step, where it is a gradient)."""
    factor = -learning_rate if update.kind == "gradient" else 1.0
    weights = add(broadcast.weights, update.delta, factor)
    buffers = update.buffers or broadcast.buffers
    return RecordDict({ARRAYS: state_record(State(weights, buffers)), METRICS: metrics})


def size(content: RecordDict) -> int:
    """Bytes of a message's records as Flower serialises them; transport headers are not counted."""
    data, frame = 0, RecordDict()
    for name, record in content.items():
        frame[name] = record
        if isinstance(record, ArrayRecord):  # its bytes are counted, not copied; a few bytes of lengths are missed
            data += sum(len(array.data) for array in record.values())
            frame[name] = ArrayRecord({k: Array(a.dtype, a.shape, a.stype, b"") for k, a in record.items()})
    return data + len(recorddict_to_proto(frame).SerializeToString())


class Reader:
    """How a server reads a reply: as an update, and as what its strategy averages."""

    def __init__(self, defenses: Sequence[Defense], protocol: Protocol) -> None:
        self._defenses, self._protocol = tuple(defenses), protocol

    def update(self, content: RecordDict, broadcast: State) -> Update:
        kind: UpdateKind = "gradient" if self._protocol.mode == "fedsgd" else "delta"
        train = self._protocol.batchnorm == "train" and bool(broadcast.buffers)
        return unpack(content, broadcast, self._defenses, kind, batchnorm=train)

    def plain(self, content: RecordDict, update: Update, broadcast: State) -> RecordDict:
        metrics = content.metric_records[METRICS]
        kept = MetricRecord({NUM_EXAMPLES: update.num_examples, LOSS: float(metrics.get(LOSS, 0.0))})  # type: ignore[arg-type]
        return plain(update, broadcast, kept, self._protocol.learning_rate)


class StockReader:
    """Replies of a stock Flower app: new weights under ``arrays``; passed on as they are."""

    def update(self, content: RecordDict, broadcast: State) -> Update:
        if missing := {ARRAYS, METRICS} - set(content):
            raise RefusedReplyError(f"expected the records {sorted(missing)} too, got {sorted(content)}")
        weights, buffers = state_from(content.array_records[ARRAYS])
        delta = {k: w - broadcast.weights[k] for k, w in checked(weights, broadcast.weights).items()}
        buffers_checked = checked(buffers, broadcast.buffers)
        return Update(delta=delta, num_examples=num_examples(content), kind="delta", buffers=buffers_checked)

    def plain(self, content: RecordDict, update: Update, broadcast: State) -> RecordDict:
        del update, broadcast
        return content
