from dataclasses import replace

import pytest
import torch
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

from defenses.quantization import Quantize
from defenses.sparsification import TopK
from fl_sim.core.errors import RefusedReplyError
from fl_sim.core.types import Protocol, Update
from fl_sim.federation import wire
from fl_sim.training.local import State

START = State({"w": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}, {})
UPDATE = Update(delta={"w": torch.full((2, 3), 0.5), "b": torch.tensor([0.0, -1.0])}, num_examples=3)


def reply(update: Update = UPDATE) -> RecordDict:
    return wire.pack(update, 1.5, 2)


def unpack(content: RecordDict) -> Update:
    return wire.unpack(content, START, (), "gradient")


def test_what_is_packed_is_unpacked_to_the_bit() -> None:
    found = unpack(reply())
    assert all(torch.equal(found.delta[k], UPDATE.delta[k]) for k in UPDATE.delta)
    assert found.num_examples == 3
    assert wire.client_of(reply()) == 2


def test_a_strategy_gets_weights_one_step_further() -> None:
    plain = wire.plain(UPDATE, START, MetricRecord({wire.NUM_EXAMPLES: 3}), learning_rate=0.1)
    weights = wire.from_record(plain.array_records[wire.ARRAYS])
    assert torch.allclose(weights["b"], torch.tensor([1.0, 1.1]))
    change = wire.plain(replace(UPDATE, kind="delta"), START, MetricRecord({wire.NUM_EXAMPLES: 3}), learning_rate=0.1)
    assert wire.from_record(change.array_records[wire.ARRAYS])["b"].tolist() == [1.0, 0.0]


def test_size_counts_what_is_sent() -> None:
    large = {"w": torch.randn(1000, 100)}
    pruned = TopK(keep=0.01)
    update = pruned.protect(Update(delta=large, num_examples=1), torch.Generator()).update
    sent = wire.pack(update, 0.0, 0)
    dense = wire.size(sent)
    sent[wire.UPDATE] = wire.to_record(pruned.codec.encode(update.delta))
    assert dense == pytest.approx(400_000, rel=0.01)
    assert wire.size(sent) == pytest.approx(1_000 * (4 + 9 / 8), rel=0.05)


def changed(**tensors: torch.Tensor | None) -> RecordDict:
    """The reply with tensors replaced, added or (``None``) left out."""
    delta = {k: t for k, t in {**UPDATE.delta, **tensors}.items() if t is not None}
    return reply(replace(UPDATE, delta=delta))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(b=None), r"expected the tensors \['b'\] too"),
        (changed(extra=torch.ones(1)), r"expected no tensors but .*got \['extra'\]"),
        (changed(b=torch.ones(3)), r"expected b to be torch.float32 \(2,\), got torch.float32 \(3,\)"),
        (changed(b=torch.ones(2, dtype=torch.float64)), r"got torch.float64"),
        (changed(b=torch.tensor([1.0, torch.nan])), "finite numbers in b"),
        (changed(w=torch.full((2, 3), torch.inf)), "finite numbers in w"),
        (reply(replace(UPDATE, num_examples=0)), "whole number from 1, got 0"),
        (RecordDict({wire.METRICS: MetricRecord({wire.NUM_EXAMPLES: 1})}), r"expected the records \['update'\] too"),
    ],
)
def test_a_bad_reply_is_refused_by_name(content: RecordDict, message: str) -> None:
    with pytest.raises(RefusedReplyError, match=message):
        unpack(content)


def test_a_stock_reply_is_a_change_of_weights() -> None:
    sent = {"w": START.weights["w"] + 1, "b": START.weights["b"], "bn.num_batches_tracked": torch.tensor(4)}
    content = RecordDict({wire.ARRAYS: wire.to_record(sent), wire.METRICS: MetricRecord({wire.NUM_EXAMPLES: 5})})
    found = wire.StockReader().update(content, START)
    assert found.kind == "delta"
    assert bool((found.delta["w"] == 1.0).all())
    assert wire.StockReader().plain(content, found, START) is content


def test_statistics_travel_beside_weights() -> None:
    tensors = {"bn.weight": torch.ones(2), "bn.running_mean": torch.zeros(2), "bn.num_batches_tracked": torch.tensor(1)}
    state = wire.state_from(wire.to_record(tensors))
    assert list(state.weights) == ["bn.weight"]
    assert list(state.buffers) == ["bn.running_mean"]


def test_a_hostile_index_is_no_crash_but_an_error() -> None:
    bad = ArrayRecord(
        {"w:index": Array(torch.tensor([255], dtype=torch.uint8).numpy()), "w:value": Array(torch.ones(1).numpy())}
    )
    content = reply()
    content[wire.UPDATE] = bad
    with pytest.raises(Exception, match=r"b|index"):
        wire.unpack(content, START, (TopK(keep=0.1), Quantize()), "gradient")


def test_the_reader_reads_batch_norm_only_where_it_trains() -> None:
    start = State(START.weights, {"bn.running_mean": torch.zeros(2)})
    update = replace(UPDATE, buffers={"bn.running_mean": torch.ones(2)})
    trained = wire.Reader((), Protocol(batchnorm="train")).update(reply(update), start)
    assert trained.buffers["bn.running_mean"].tolist() == [1.0, 1.0]
    with pytest.raises(RefusedReplyError, match="buffers"):
        wire.Reader((), Protocol(batchnorm="train")).update(reply(), start)
    assert not wire.Reader((), Protocol()).update(reply(update), start).buffers
