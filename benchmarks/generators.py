"""What searching many chains inside a generator at once is worth."""

import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from attacks import ATTACKS
from benchmarks.gpu import observed
from fl_sim.core import heap
from fl_sim.core.seeds import derive
from fl_sim.core.types import Observation, Task
from fl_sim.training.local import single_threaded

TASK = Task(image_shape=(1, 28, 28), classes=10, mean=(0.13,), std=(0.31,))
TURNS, CHAINS = 5, 4
SEARCHES: Mapping[str, tuple[int, Mapping[str, int]]] = MappingProxyType(
    {"gifd": (20, {"stages": 2}), "gias": (20, {"latent_steps": 2}), "ggl": (20, {"population": 16})}
)
"""Steps of the shorter of two runs, of which the other takes three times as many; other options."""


def measure() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each search with one chain, several starts of one target, and several targets, in turns, on one thread."""
    heap.keep_freed()
    model, seen = observed("cnn", CHAINS, TASK)
    ways = {"one": (1, 1), f"{CHAINS} restarts": (1, CHAINS), f"{CHAINS} targets": (CHAINS, 1)}
    with single_threaded():
        for name in SEARCHES:
            found: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(TURNS):
                for way, (targets, restarts) in ways.items():
                    found[way].append(round(_step(name, model, seen[:targets], restarts), 3))
            yield name, {"ms": found}


def _step(name: str, model: nn.Module, seen: list[Observation], restarts: int) -> float:
    """Milliseconds of one chain; what is done once does not count."""
    steps, options = SEARCHES[name]
    each = len(seen) * restarts * options.get("population", options.get("stages", 0) + 1)
    short, long = (
        _seconds(name, model, seen, {"steps": many, "restarts": restarts, **options}) for many in (steps, 3 * steps)
    )
    return 1000 * (long - short) / (2 * steps * each)


def _seconds(name: str, model: nn.Module, seen: list[Observation], options: Mapping[str, int]) -> float:
    attack, rngs = ATTACKS[name](generator="digits", **options), [derive(one.client) for one in seen]
    began = time.perf_counter()
    attack.batched(seen, model, rngs)
    return time.perf_counter() - began
