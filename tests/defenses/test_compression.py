import pytest
import torch

from defenses.quantization import Quantize
from defenses.sparsification import TopK
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
    codec = TopK.codec
    sparse, dense = torch.zeros(10), torch.ones(10)
    sparse[3] = 5.0
    sent = codec.encode({"s": sparse, "d": dense})
    assert sorted(sent) == ["d", "s:index", "s:value"]
    assert sent["s:index"].tolist() == [3]


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
    sent = Quantize.codec.encode(Quantize().protect(update((40,)), derive(0)).update.delta)
    assert sent["t0:code"].dtype == torch.int8
    assert int(sent["t0:code"].abs().max()) == 127


def test_topk_then_bytes_stack() -> None:
    stack = [TopK(keep=0.1), Quantize()]
    out = update((100, 10))
    for defense in stack:
        out = defense.protect(out, derive(0)).update
    sent = Quantize.codec.encode(TopK.codec.encode(out.delta))
    assert sorted(sent) == ["t0:index", "t0:value:code", "t0:value:scale"]
    back = TopK.codec.decode(Quantize.codec.decode(sent, out.delta), out.delta)
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
