from typing import Literal

import pytest
import torch

from defenses.quantization import Packed, Quantize, SignSgd
from defenses.sparsification import Sparse, TopK
from fl_sim.core.contracts import Defense
from fl_sim.core.seeds import derive
from fl_sim.core.types import Update


def update(*shapes: tuple[int, ...]) -> Update:
    return Update(
        delta={f"t{i}": torch.randn(s, generator=derive(0, i)) * 10**i for i, s in enumerate(shapes)}, num_examples=1
    )


def test_topk_keeps_the_largest_of_all_and_nothing_else() -> None:
    before = update((50, 4), (30,))
    after = TopK(keep=0.1).protect(before, derive(0)).update.delta
    entries = torch.cat([t.reshape(-1) for t in before.delta.values()])
    kept = torch.cat([t.reshape(-1) for t in after.values()])
    largest = entries.abs().topk(23).indices
    assert kept.count_nonzero() == 23
    assert torch.equal(kept[largest], entries[largest])


def test_topk_by_layer_leaves_none_empty() -> None:
    after = TopK(keep=0.1, scope="layer").protect(update((50, 4), (30,)), derive(0))
    assert [int(t.count_nonzero()) for t in after.update.delta.values()] == [20, 3]
    assert after.stats["kept"] == pytest.approx(0.1)


def test_topk_always_keeps_one() -> None:
    assert int(TopK(keep=1e-6).protect(update((5,)), derive(0)).update.delta["t0"].count_nonzero()) == 1


def test_topk_twice_is_topk_once() -> None:
    once = TopK(keep=0.2).protect(update((40,)), derive(0)).update
    assert torch.equal(TopK(keep=0.2).protect(once, derive(0)).update.delta["t0"], once.delta["t0"])


def test_sparse_code_is_used_only_where_it_is_smaller() -> None:
    codec = Sparse()
    sparse, dense = torch.zeros(10), torch.ones(10)
    sparse[3] = 5.0
    sent = codec.encode({"s": sparse, "d": dense})
    assert sorted(sent) == ["d", "s:index", "s:value"]
    assert torch.equal(codec.decode(sent, {"s": sparse, "d": dense})["s"], sparse)


def test_quantisation_error_is_at_most_half_a_level() -> None:
    before = update((100, 7), (9,))
    after = Quantize().protect(before, derive(0))
    for name, tensor in before.delta.items():
        half = tensor.abs().max() / 254
        assert bool(((after.update.delta[name] - tensor).abs() <= half * 1.0001).all())


def test_quantising_twice_is_quantising_once() -> None:
    once = Quantize().protect(update((40,)), derive(0)).update
    assert torch.allclose(Quantize().protect(once, derive(0)).update.delta["t0"], once.delta["t0"], rtol=1e-6)


def test_codes_are_single_bytes() -> None:
    sent = Packed(8).encode(Quantize().protect(update((40,)), derive(0)).update.delta)
    assert sent["t0:code"].dtype == torch.uint8
    assert len(sent["t0:code"]) == 40
    assert {int(sent["t0:code"].min()), int(sent["t0:code"].max())} & {0, 254}


def test_topk_then_bytes_stack() -> None:
    stack = [TopK(keep=0.1), Quantize()]
    out = update((100, 10))
    for defense in stack:
        out = defense.protect(out, derive(0)).update
    sent = Packed(8).encode(Sparse().encode(out.delta))
    assert sorted(sent) == ["t0:index", "t0:value:code", "t0:value:scale", "t0:value:shape"]
    back = Sparse().decode(Packed(8).decode(sent, out.delta), out.delta)
    assert torch.allclose(back["t0"], out.delta["t0"], rtol=1e-6)


@pytest.mark.parametrize(
    "stack", [[TopK(keep=0.1), Quantize()], [Quantize(), TopK(keep=0.1)]], ids=["topk", "quantize"]
)
def test_codecs_decode_in_any_order(stack: list[Defense]) -> None:
    out = update((100, 10), (3, 3))
    for defense in stack:
        out = defense.protect(out, derive(0)).update
    sent = out.delta
    for defense in stack:
        sent = defense.codec.encode(sent)
    for defense in reversed(stack):
        sent = defense.codec.decode(sent, out.delta)
    assert all(torch.allclose(sent[k], t, rtol=1e-6) for k, t in out.delta.items())


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_stochastic_rounding_is_right_on_average_and_off_by_a_level_at_most(bits: Literal[2, 4, 8]) -> None:
    before = update((60,)).delta["t0"]
    tensors = Update(delta={"w": before.expand(4000, 60).reshape(-1)}, num_examples=1)
    found = Quantize(bits=bits, rounding="stochastic").protect(tensors, derive(0)).update.delta["w"].view(4000, 60)
    level = before.abs().max() / Packed(bits).levels
    assert (found - before).abs().max() <= level * 1.0001
    deviations = (found.mean(0) - before) / (level / 4000**0.5)
    assert deviations.abs().max() < 3.0  # at most half a level is one deviation of a draw


def test_signs_and_mean_sizes_are_sent() -> None:
    after = SignSgd().protect(Update(delta={"w": torch.tensor([3.0, -1.0, 0.0, -4.0])}, num_examples=1), derive(0))
    assert after.update.delta["w"].tolist() == [2.0, -2.0, 2.0, -2.0]
    assert SignSgd().codec.encode(after.update.delta)["w:code"].tolist() == [0b0101]
