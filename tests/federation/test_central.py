"""Central differential privacy in a small federation: clipped and noised as stated, and no secret from the server."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from flwr.app import Message
from torch import Tensor

from fl_sim.core.errors import ConfigError
from fl_sim.core.trees import flat, subtract
from fl_sim.core.types import Tensors
from fl_sim.federation.central import CENTRAL
from fl_sim.federation.server import build_strategy
from fl_sim.training.local import state_of
from tests.federation.world import CLIENTS, Trained, federate, job, small_model

CLIP = 0.05


def trained(noise_multiplier: float, **options: object) -> Trained:
    own = {"noise_multiplier": noise_multiplier, "clipping_norm": CLIP}
    return federate(job(), strategy=CENTRAL, options=own, rounds=1, **options)  # type: ignore[arg-type]


def moved(out: Trained) -> Tensor:
    return flat(subtract(out.state.weights, state_of(small_model()).weights))


def clipped_mean(out: Trained) -> Tensor:
    changes = [-0.1 * flat(seen.update.delta) for seen in out.seen]
    return torch.stack([c * min(1.0, CLIP / c.norm().item()) for c in changes]).mean(0)


def test_the_weights_move_by_the_mean_of_clipped_updates() -> None:
    out = trained(0.0)
    assert all((0.1 * flat(seen.update.delta)).norm() > CLIP for seen in out.seen)
    assert torch.allclose(moved(out), clipped_mean(out), atol=1e-7)


def test_the_noise_is_as_loud_as_stated_and_drawn_by_the_studys_seed() -> None:
    first, again = trained(3.0), trained(3.0)
    noise = moved(first) - clipped_mean(first)
    assert noise.std().item() == pytest.approx(3.0 * CLIP / CLIENTS, rel=0.1)
    assert torch.equal(moved(first), moved(again))


def test_the_server_sees_what_it_saw_without() -> None:
    def updates(out: Trained) -> list[Tensors]:
        return [seen.update.delta for seen in out.seen]

    raw = federate(job(), rounds=1)
    for mine, theirs in zip(updates(trained(3.0)), updates(raw), strict=True):
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_numpys_global_generator_goes_on_where_it_was() -> None:
    np.random.seed(5)
    expected = np.random.normal(size=2).tolist()
    np.random.seed(5)
    first = np.random.normal()
    trained(3.0)
    assert [first, np.random.normal()] == expected


def test_a_round_with_a_reply_missing_is_not_released() -> None:
    def broken(reply: Message) -> Message:
        reply.content["update"] = reply.content["metrics"]
        return reply

    bad: Mapping[int, object] = {1: broken}
    out = trained(0.0, bad=bad)
    assert moved(out).norm() == 0
    assert [refusal.client for refusal in out.rounds[0].refused] == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clipping_norm": 1.0}, "noise_multiplier"),
        ({"noise_multiplier": -1.0, "clipping_norm": 1.0}, "non-negative"),
        ({"noise_multiplier": 1.0, "clipping_norm": 1.0, "nonsense": 2}, "nonsense"),
    ],
)
def test_wrong_options_are_named(options: Mapping[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_strategy(CENTRAL, 2, options)
    with pytest.raises(ConfigError, match="no strategy"):
        build_strategy("DifferentialPrivacyClientSideFixedClipping", 2, options)
