"""PowerSGD against the singular value decomposition, count sketches against their definition."""

import pytest
import torch

from defenses.low_rank import Buckets, Factors, PowerSgd, Sketch
from defenses.quantization import Packed, Quantize, SignSgd
from fl_sim.core.contracts import Defense
from fl_sim.core.seeds import derive
from fl_sim.core.types import Tensors, Update


def update(*shapes: tuple[int, ...]) -> Update:
    return Update(delta={f"t{i}": torch.randn(s, generator=derive(0, i)) for i, s in enumerate(shapes)}, num_examples=1)


def sent(defense: Defense, what: Update) -> Tensors:
    return defense.protect(what, derive(0)).update.delta


def test_a_matrix_of_the_rank_it_sends_is_sent_exactly() -> None:
    low = torch.randn(30, 3, generator=derive(1)) @ torch.randn(3, 40, generator=derive(2))
    found = PowerSgd(rank=3).protect(Update(delta={"w": low}, num_examples=1), derive(0))
    assert torch.allclose(found.update.delta["w"], low, atol=1e-4)
    assert found.stats["relative_error"] < 1e-5


@pytest.mark.parametrize("rank", [1, 4])
def test_what_is_left_is_of_that_rank_and_not_much_worse_than_the_best(rank: int) -> None:
    decaying = torch.diag(2.0 ** -torch.arange(30)) @ torch.randn(30, 40, generator=derive(3))
    found = sent(PowerSgd(rank=rank), Update(delta={"w": decaying}, num_examples=1))["w"]
    assert int(torch.linalg.matrix_rank(found)) == rank
    best = torch.linalg.svdvals(decaying)[rank:].norm()
    assert best < (decaying - found).norm() < 4 * best


def test_a_convolution_is_a_matrix_with_a_row_a_filter_and_small_tensors_stay() -> None:
    before = update((16, 4, 3, 3), (16,), (2, 2))
    after = sent(PowerSgd(rank=2), before)
    assert int(torch.linalg.matrix_rank(after["t0"].flatten(1))) == 2
    assert torch.equal(after["t1"], before.delta["t1"])
    assert torch.equal(after["t2"], before.delta["t2"])
    assert sorted(Factors(2, 0).encode(after)) == ["t0:left", "t0:right", "t1", "t2"]


def test_a_sketch_is_the_signed_sum_of_each_bucket() -> None:
    codec, before = Buckets(0.2, 7), update((10, 5))
    bucket, sign = codec.hashes(50)
    flat = before.delta["t0"].reshape(-1)
    sums = [sum(float(s * x) for b, s, x in zip(bucket, sign, flat, strict=True) if b == place) for place in range(10)]
    assert codec.sums(flat).tolist() == pytest.approx(sums, abs=1e-5)
    after = sent(Sketch(ratio=0.2, seed=7), before)["t0"].reshape(-1)
    assert after.tolist() == pytest.approx(
        [float(s) * sums[int(b)] for b, s in zip(bucket, sign, strict=True)], abs=1e-5
    )


def test_a_sketch_is_right_on_average_over_its_seeds() -> None:
    before = update((40,))
    found = torch.stack([sent(Sketch(ratio=0.5, seed=seed), before)["t0"] for seed in range(2000)])
    deviations = (found.mean(0) - before.delta["t0"]) / (found.std(0) / 2000**0.5)
    assert deviations.abs().max() < 4.5


def test_a_guess_is_sent_as_the_client_would_send_it() -> None:
    before = update((16, 20), (5,))
    for defense in (PowerSgd(rank=2), Sketch(ratio=0.3)):
        (choice,) = defense.choices({name: torch.stack([t, 2 * t]) for name, t in before.delta.items()}, {})
        for name, t in sent(defense, before).items():
            assert torch.allclose(choice.values[name][0], t, atol=1e-6)
            assert torch.allclose(choice.values[name][1], 2 * t, atol=1e-5)


def test_packed_codes_of_every_width_come_back() -> None:
    for bits in (1, 2, 4, 8):
        codec = Packed(bits)
        codes = torch.randint(-codec.levels, codec.levels + 1, (7, 3), generator=derive(bits)).float()
        codes = torch.where(codes == 0, 1.0, codes) if bits == 1 else codes
        codes[0, 0] = codec.levels  # the scale is read off the largest
        grid = {"w": codes * 0.25, "zeros": torch.zeros(5), "none": torch.zeros(0), "index": torch.arange(3)}
        back = codec.decode(codec.encode(grid), grid)
        assert sorted(back) == sorted(grid)
        assert all(torch.allclose(back[name].float(), t.float()) for name, t in grid.items())
        assert codec.encode(grid)["w:code"].numel() == -(-21 * bits // 8)


def test_the_slope_is_finite_where_a_guess_has_less_rank_than_is_sent() -> None:
    """The gradient of a fully connected layer behind one image is of rank one."""
    left, right = (torch.randn(n, generator=derive(i)) for i, n in enumerate((16, 20)))
    for matrix in (torch.outer(left, right), torch.zeros(16, 20)):
        trials = {"w": matrix[None].clone().requires_grad_()}
        sent = PowerSgd(rank=4).projected(trials)["w"]
        assert torch.allclose(sent, trials["w"], atol=1e-4)
        (slope,) = torch.autograd.grad((sent * torch.ones(16, 20)).sum(), trials["w"])
        assert slope.isfinite().all()
        assert slope.norm() <= 20  # no longer than what comes in: a projection


def test_empty_and_single_entries_pass_all_codecs() -> None:
    odd = {"empty": torch.zeros(0, 3), "scalar": torch.tensor(2.0), "tiny": torch.tensor([1e-45, 0.0])}
    for defense in (PowerSgd(rank=1), Sketch(ratio=0.5), Quantize(bits=4), SignSgd()):
        out = defense.protect(Update(delta=odd, num_examples=1), derive(0)).update.delta
        back = defense.codec.decode(defense.codec.encode(out), out)
        assert all(torch.equal(back[name], t) or torch.allclose(back[name], t) for name, t in out.items())
        assert all(bool(t.isfinite().all()) for t in out.values())
