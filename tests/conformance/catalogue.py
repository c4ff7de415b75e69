"""The registered defenses, with arguments for tests; a new defense gets a line in each table here."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn

from defenses import DEFENSES
from fl_sim.core.contracts import AnyDefense, Defense, GradientDefense
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Observation, Tensors
from fl_sim.federation.client import ClientJob, train_once
from fl_sim.training.local import State, state_of
from tests.conftest import TASK, observe

SMALL: Mapping[str, dict[str, Any]] = {  # arguments that make each defense do something on the shared world
    "ats": {},
    "clip": {"norm": 0.5},
    "dpsgd": {"clip": 1.0, "noise_multiplier": 0.05},
    "gaussian": {"std": 0.1},
    "instahide": {"mixes": 3},
    "laplace": {"scale": 0.1},
    "mixup": {},
    "powersgd": {"rank": 2},
    "precode": {"width": 8},
    "quantize": {},
    "random_prune": {"rate": 0.9},
    "signsgd": {},
    "sketch": {"ratio": 0.1},
    "soteria": {"rate": 0.5},
    "topk": {"keep": 0.1},
}
NO_OP: Mapping[str, dict[str, Any]] = {
    "ats": {"policy": ""},
    "clip": {"norm": 1e9},
    "dpsgd": {"clip": 1e9, "noise_multiplier": 0.0},
    "gaussian": {"std": 0.0},
    "laplace": {"scale": 0.0},
    "mixup": {"alpha": 0.0},
    "powersgd": {"rank": 1000},
    "random_prune": {"rate": 0.0},
    "soteria": {"rate": 0.0},
    "topk": {"keep": 1.0},
}
IMPOSSIBLE: Mapping[str, dict[str, Any]] = {
    "ats": {"policy": "no-such-entry"},
    "clip": {"norm": 0.0},
    "dpsgd": {"clip": 1.0, "noise_multiplier": -1.0},
    "gaussian": {"std": -0.1},
    "instahide": {"mixes": 4, "most": 0.25},
    "laplace": {"scale": -0.1},
    "mixup": {"alpha": -1.0},
    "powersgd": {"rank": 0},
    "precode": {"width": 0},
    "quantize": {"bits": 7},
    "random_prune": {"rate": 1.0},
    "signsgd": {"bits": 1},
    "sketch": {"ratio": 1.0},
    "soteria": {"rate": 1.5},
    "topk": {"keep": 2.0},
}
BYTES: Mapping[str, float] = {  # per entry of a large tensor; of defenses that rewrite the update
    "clip": 4.0,
    "gaussian": 4.0,
    "laplace": 4.0,
    "powersgd": 4.0 * 2 * (1000 + 100) / 100_000,
    "quantize": 1.0,
    "random_prune": 0.1 * 4 + (0.1 * 4 + 1 / 8) / 8,  # values, and where they were
    "signsgd": 0.125,
    "sketch": 0.4,
    "topk": 0.1 * 4 + (0.1 * 4 + 1 / 8) / 8,
}


def made(name: str) -> AnyDefense:
    return DEFENSES[name](**SMALL[name])


def of_kind(kind: type) -> list[str]:
    """Names of the registered defenses of a kind; those that are missing here are missed by a test of their own."""
    return sorted(name for name in set(DEFENSES) & set(SMALL) if isinstance(made(name), kind))


class Fixed(NamedTuple):
    """A client's data: the same batch in every round."""

    images: Batch

    def batch(self, client: int, round_: int, size: int | None) -> Batch:
        return self.images


def defended(defense: AnyDefense, model: nn.Module, batch: Batch) -> tuple[Observation, Tensors]:
    """What the server sees of a client with this one defense, as the client applies it; and what was drawn.

    A data defense draws for the whole client; the truth is then the transformed batch.
    """
    seen = observe(model, batch)
    assert seen.protocol is not None
    job = ClientJob(data=Fixed(batch), model=lambda: model, protocol=seen.protocol, defenses=(defense,), seed=0)
    update, _ = train_once(job, State(seen.broadcast, seen.buffers), 0, 1)
    drawn: Tensors = {}
    if isinstance(defense, Defense):
        protected = defense.protect(update, derive(0, "defense", 1, 0, 0))
        update, drawn = protected.update, {f"0/{k}": t for k, t in protected.randomness.items()}
    return replace(seen, update=update), drawn


def three() -> Batch:
    return Batch(torch.rand(3, *TASK.image_shape, generator=derive(0, "three")), torch.tensor([1, 5, 5]))


def gradient_of(defense: AnyDefense, model: nn.Module, batch: Batch, seed: int = 0) -> Tensors:
    assert isinstance(defense, GradientDefense)
    state = state_of(model)
    return defense.gradient(model, state.weights, state.buffers, batch, derive(seed))
