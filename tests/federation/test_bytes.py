"""What compressed updates take on the wire, against what there is to say."""

import math
from collections.abc import Callable

import pytest
import torch
from flwr.common.serde import recorddict_to_proto

from defenses import DEFENSES
from fl_sim import models
from fl_sim.core.contracts import Defense
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Protocol, Task, Tensors, Update
from fl_sim.federation import wire
from fl_sim.training.local import local_update, state_of

MNIST = Task(image_shape=(1, 28, 28), classes=10, mean=(0.13,), std=(0.31,))


@pytest.fixture(scope="module")
def update() -> Update:
    """Of the network of most studies, 333,526 entries."""
    model = models.build("cnn", MNIST, 0)
    batch = Batch(torch.rand(1, 1, 28, 28, generator=derive(0)), torch.tensor([3]))
    return local_update(model, state_of(model), batch, Protocol(), derive(0))[0]


def bits(each: int) -> Callable[[Tensors], float]:
    return lambda sent: each * sum(t.numel() for t in sent.values())


def chosen(sent: Tensors) -> float:
    """Values, and which of all entries they are."""
    total, kept = sum(t.numel() for t in sent.values()), sum(int(t.count_nonzero()) for t in sent.values())
    choices = math.lgamma(total + 1) - math.lgamma(kept + 1) - math.lgamma(total - kept + 1)
    return 32 * kept + choices / math.log(2)


def factors(sent: Tensors) -> float:
    """Two of rank 4 a matrix where they are smaller, else the tensor."""
    pairs = [4 * (t.shape[0] + t[0].numel()) if t.dim() > 1 else t.numel() for t in sent.values()]
    return 32 * sum(min(pair, t.numel()) for pair, t in zip(pairs, sent.values(), strict=True))


@pytest.mark.parametrize(
    ("name", "options", "content"),
    [
        ("topk", {"keep": 0.01}, chosen),
        ("quantize", {"bits": 8}, bits(8)),
        ("quantize", {"bits": 4}, bits(4)),
        ("quantize", {"bits": 2}, bits(2)),
        ("signsgd", {}, bits(1)),
        ("powersgd", {"rank": 4}, factors),
    ],
)
def test_a_reply_is_hardly_longer_than_what_it_says(
    update: Update, name: str, options: dict[str, float], content: Callable[[Tensors], float]
) -> None:
    """Within a tenth, on Flower's message as it is serialised, loss and number of images included."""
    defense = DEFENSES[name](**options)
    assert isinstance(defense, Defense)
    sent = defense.protect(update, derive(1)).update.delta
    reply = wire.pack(update, 0.5, 0)
    reply[wire.UPDATE] = wire.to_record(defense.codec.encode(sent))
    length = len(recorddict_to_proto(reply).SerializeToString())
    assert content(sent) < 8 * length < 1.1 * content(sent)
    assert wire.size(reply) == pytest.approx(length, rel=0.01), "what reports say"
