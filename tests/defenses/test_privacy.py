"""Which stacks are private, and how much one record or one client can move beside the noise."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from defenses.clipping import Clip
from defenses.dpsgd import DpSgd
from defenses.mixing import Mixup
from defenses.noise import Gaussian, Laplace
from defenses.privacy import Guarantee, central, guarantee
from defenses.quantization import Quantize
from defenses.sparsification import TopK
from fl_sim.core.contracts import AnyDefense
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat, map_tree
from fl_sim.core.types import Batch, Protocol, Tensors, Update
from fl_sim.training.local import example_gradients, state_of

CLIP, NOISE = Clip(norm=2.0), Gaussian(std=1.0)
SGD, LOCAL = Protocol(batch_size=4), Protocol(mode="fedavg", batch_size=4, local_epochs=3)


@pytest.mark.parametrize(
    ("stack", "protocol", "expected"),
    [
        ((DpSgd(clip=1.0, noise_multiplier=0.7),), SGD, ("record", 0.7, 1)),
        ((DpSgd(clip=1.0, noise_multiplier=0.7), Quantize()), LOCAL, ("record", 0.7, 3)),
        ((CLIP, NOISE), LOCAL, ("client", 0.25, 1)),
        ((TopK(keep=0.1), CLIP, NOISE, Quantize()), SGD, ("client", 0.25, 1)),
        ((DpSgd(clip=1.0, noise_multiplier=0.7), CLIP, NOISE), SGD, ("record", 0.7, 1)),
    ],
    ids=str,
)
def test_private(stack: tuple[AnyDefense, ...], protocol: Protocol, expected: tuple[str, float, int]) -> None:
    found = guarantee(stack, protocol, 40)
    assert found is not None
    assert (found.protects, found.multiplier, found.steps) == expected


@pytest.mark.parametrize(
    "stack",
    [
        (),
        (NOISE,),
        (NOISE, CLIP),
        (CLIP, Quantize(), NOISE),  # rounding up can make a clipped update longer again
        (Clip(norm=2.0, scope="layer"), NOISE),
        (CLIP, Gaussian(std=1.0, averaging="per_example")),
        (CLIP, Laplace(scale=1.0)),
        (CLIP, Gaussian(std=0.0)),
        (DpSgd(clip=1.0, noise_multiplier=0.0),),
    ],
    ids=str,
)
def test_not_private(stack: tuple[AnyDefense, ...]) -> None:
    assert guarantee(stack, SGD, 40) is None


def test_a_record_may_be_in_every_poisson_sample() -> None:
    found = guarantee((DpSgd(clip=1.0, noise_multiplier=0.7),), replace(LOCAL, sampling="poisson"), 41)
    assert found == Guarantee("record", 0.7, steps=3 * 10, rate=4 / 41)
    assert guarantee((CLIP, NOISE), replace(LOCAL, sampling="poisson"), 41) == Guarantee("client", 0.25, 1)


def test_of_clients_of_several_sizes_the_worst_of_both_counts() -> None:
    found = guarantee((DpSgd(clip=1.0, noise_multiplier=0.7),), replace(LOCAL, sampling="poisson"), 41, 80)
    assert found == Guarantee("record", 0.7, steps=3 * 20, rate=4 / 41)


def test_records_that_are_mixed_are_not_protected_one_by_one() -> None:
    assert guarantee((Mixup(), DpSgd(clip=1.0, noise_multiplier=0.7)), SGD, 40) is None
    assert guarantee((Mixup(), CLIP, NOISE), SGD, 40) == Guarantee("client", 0.25, 1)


def test_a_server_that_adds_the_noise_protects_from_others_alone() -> None:
    """An exchanged client moves the sum of clipped updates by two clips, and the noise is one times as many."""
    assert central(3.0) == Guarantee("client", 1.5, 1, against="model")
    assert central(0.0) is None


def test_batch_statistics_are_not_covered() -> None:
    assert guarantee((CLIP, NOISE), Protocol(batch_size=4, batchnorm="train"), 40) is None


def test_a_record_moves_the_sum_by_the_clip_at_most_and_noise_is_as_many_times_that(model: nn.Module) -> None:
    """On ten times the gradient that is clipped: the bound is reached."""
    dp, count = DpSgd(clip=0.01, noise_multiplier=0.7), 4
    batch = Batch(torch.rand(count, 1, 8, 8, generator=derive(0)), torch.arange(count))
    examples = map_tree(lambda t: t[None], example_gradients(model, state_of(model), batch))
    without: Tensors = map_tree(lambda t: t * torch.tensor([1.0, 1, 1, 0]).view(1, 4, *[1] * (t.dim() - 2)), examples)
    moved = count * (flat(dp.join(examples)) - flat(dp.join(without))).norm().item()
    assert moved == pytest.approx(0.01, rel=1e-4)
    noise: Any = dp.noise(count)
    assert count * noise.std / moved == pytest.approx(0.7, rel=1e-4)


def test_exchanging_a_client_moves_its_update_by_twice_the_norm_at_most() -> None:
    away = {name: Update(delta={"w": s * torch.full((9,), 5.0)}, num_examples=1) for name, s in (("a", 1), ("b", -1))}
    sent = {name: CLIP.protect(update, derive(0)).update.delta["w"] for name, update in away.items()}
    assert (sent["a"] - sent["b"]).norm().item() == pytest.approx(2 * CLIP.norm)
