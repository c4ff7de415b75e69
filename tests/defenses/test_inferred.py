"""What each defense's parameters are taken to be by who sees only what it sent: held against its own samples."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from defenses import DEFENSES
from defenses.clipping import Clip
from defenses.dpsgd import DpSgd
from defenses.low_rank import PowerSgd, Sketch
from defenses.noise import Gaussian, Laplace
from defenses.quantization import Quantize, SignSgd
from defenses.sparsification import RandomPrune, TopK
from fl_sim import models
from fl_sim.core.contracts import Defense
from fl_sim.core.errors import NoDensityError
from fl_sim.core.mechanism import has_estimate
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat, map_tree
from fl_sim.core.types import Batch, Update
from fl_sim.training.local import state_of
from tests.conftest import TASK, observe

IMAGE = Batch(torch.rand(1, *TASK.image_shape, generator=derive(0, "image")), torch.tensor([2]))
NET = models.build("cnn", TASK, 0)
CLEAN = observe(NET, IMAGE).update  # 46,000 entries, root mean square 0.02, a third of them 0 (dead ReLUs)


def sent(*stack: Defense) -> Update:
    update = CLEAN
    for place, defense in enumerate(stack):
        update = defense.protect(update, derive(3, place)).update
    return update


def inferred(stack: Sequence[Defense], noise: float = 0.0) -> dict[str, Any]:
    """Of the first, of which the others are known by their noise."""
    return vars(type(stack[0]).inferred(sent(*stack), noise))


LEN = {"global": 0.5, "layer": 0.1}
EXACT: list[Defense] = [
    Clip(norm=LEN["global"]),
    Clip(norm=LEN["layer"], scope="layer"),
    *(Quantize(bits=bits) for bits in (2, 4, 8)),
    SignSgd(),
    *(PowerSgd(rank=rank) for rank in (1, 3)),
    TopK(keep=0.1),
    TopK(keep=0.1, scope="layer"),
]


@pytest.mark.parametrize("defense", EXACT, ids=repr)
def test_what_leaves_its_mark_is_read_exactly(defense: Defense) -> None:
    """To 1 %: counts are whole numbers. Of a single image the rank of most matrices is 1; conv2's is more."""
    found, true = inferred([defense]), vars(defense)
    assert {k: v for k, v in found.items() if not isinstance(v, float)} == {
        k: v for k, v in true.items() if not isinstance(v, float)
    }
    for name, value in true.items():
        if isinstance(value, float):
            assert found[name] == pytest.approx(value, rel=0.01)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_stochastic_rounding_is_taken_for_that_to_the_nearest(bits: Any) -> None:
    """Nothing that is sent tells them apart; with the narrower cells attacks do better, also where they are wrong."""
    assert inferred([Quantize(bits=bits, rounding="stochastic")]) == vars(Quantize(bits=bits))


def test_a_clip_that_was_not_felt_is_taken_for_one_that_still_is_not() -> None:
    found = inferred([Clip(norm=1e9)])
    assert torch.equal(
        Clip(**found).protect(CLEAN, derive(0)).update.delta["net.fc1.weight"], CLEAN.delta["net.fc1.weight"]
    )


@pytest.mark.parametrize("rate", [0.3, 0.9])
def test_a_pruning_rate_is_the_share_of_zeros_where_nothing_was_zero_before(rate: float) -> None:
    """Not of all entries, of which two thirds were; a little too high, for the tensors without zeros are small."""
    found = inferred([RandomPrune(rate=rate)])["rate"]
    assert rate - 0.01 < found < rate + 0.1
    assert found < flat(sent(RandomPrune(rate=rate)).delta).eq(0).double().mean().item()


def test_the_mask_is_shown_by_zeros_where_nothing_follows() -> None:
    defense = RandomPrune(rate=0.5)
    protected = defense.protect(CLEAN, derive(0))
    shown = defense.shown(protected.update.delta)
    assert sorted(shown) == sorted(protected.randomness)
    for name, clean in CLEAN.delta.items():
        mask = shown[f"mask/{name}"]
        assert torch.equal(mask[clean != 0], protected.randomness[f"mask/{name}"][clean != 0])
        assert not mask[clean == 0].any()


@pytest.mark.parametrize("scale", [1e-4, 1e-3, 1e-2, 1e-1])
@pytest.mark.parametrize("kind", [Gaussian, Laplace])
def test_noise_is_that_of_small_entries(kind: type[Gaussian | Laplace], scale: float) -> None:
    """Never less; the more the quieter: up to 2.5 times at a hundredth of the update's root mean square."""
    defense = Gaussian(std=scale) if kind is Gaussian else Laplace(scale=scale)
    (found,) = (v for v in inferred([defense]).values() if isinstance(v, float))
    assert 0.95 < found / scale < (1.1 if scale >= 0.05 else 2.5)


def test_of_two_noises_the_later_is_taken_off() -> None:
    found = Gaussian.inferred(sent(Gaussian(std=0.3), Gaussian(std=0.4)), 0.4)
    assert found.std == pytest.approx(0.3, rel=0.1)


def test_strength_before_noise_is_that_of_what_stands_out_of_it() -> None:
    loud = Gaussian(std=1e-4)
    assert inferred([Clip(norm=0.5), loud], 1e-4)["norm"] == pytest.approx(0.5, rel=0.01)
    assert inferred([TopK(keep=0.1), loud], 1e-4)["keep"] == pytest.approx(0.1, rel=0.1)
    assert inferred([PowerSgd(rank=1), loud], 1e-4)["rank"] == 1
    rate = inferred([RandomPrune(rate=0.8), loud], 1e-4)["rate"]
    assert 0.79 < rate < 0.9


@pytest.mark.parametrize("images", [1, 4])
def test_dpsgds_clip_and_multiplier_are_read_from_length_and_noise(images: int) -> None:
    """Of one image to 20 % under noise twice as long as the clip; of four, not quite orthogonal, to a factor of 2."""
    batch = Batch(torch.rand(images, *TASK.image_shape, generator=derive(1)), torch.arange(images))
    state, true = state_of(NET), DpSgd(clip=1.0, noise_multiplier=1e-2)
    tree = true.gradient(NET, state.weights, state.buffers, batch, derive(2))
    found = DpSgd.inferred(Update(delta=tree, num_examples=images), 0.0)
    tolerance = 1.2 if images == 1 else 2.0
    assert 1 / tolerance < found.clip < tolerance
    noise, expected = found.noise(images), true.noise(images)
    assert noise is not None
    assert expected is not None
    assert 0.9 < noise.std / expected.std < 2


@pytest.mark.parametrize("name", sorted(n for n in DEFENSES if has_estimate(DEFENSES[n])))  # type: ignore[arg-type]
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_zeros_and_noise_alone_give_something_that_can_be_used(name: str, noise: float) -> None:
    kind: Any = DEFENSES[name]
    for delta in (map_tree(torch.zeros_like, CLEAN.delta), map_tree(torch.randn_like, CLEAN.delta)):
        assert isinstance(kind.inferred(replace(CLEAN, delta=delta), noise), kind)


def test_what_cannot_be_told_is_refused_with_what_to_do() -> None:
    silent = sorted(name for name in DEFENSES if not has_estimate(DEFENSES[name]))  # type: ignore[arg-type]
    assert silent == ["ats", "instahide", "mixup", "precode", "sketch", "soteria"]
    with pytest.raises(NoDensityError, match=r'Sketch cannot be told .*: set defense = "parameters"'):
        Sketch.inferred(CLEAN, 0.0)
    with pytest.raises(NoDensityError, match="or use inverting_gradients or cosine"):
        DEFENSES["soteria"].inferred(CLEAN, 0.0)  # type: ignore[attr-defined]
