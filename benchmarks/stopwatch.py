"""How long an attack takes, and the memory, on one processor or on all of them at once."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple
from unittest.mock import patch

import torch

from attacks import ATTACKS
from attacks.compilation import compiling
from attacks.gradients import Looped
from benchmarks.case import case
from benchmarks.plan import SAME
from benchmarks.tools import breaching
from fl_sim.core import heap
from fl_sim.core.places import cache_dir
from fl_sim.core.seeds import derive


class Figures(NamedTuple):
    """Seconds, and the most MiB that were resident, all that a process imports included."""

    seconds: float
    mebibytes: float


@dataclass(frozen=True)
class Lap:
    """What is timed.

    Args:
        tool: ``fl-sim``; ``compiled``, the same with its step compiled; ``looped``, the same trial by trial through the
            model; or ``breaching``.
        model: Which network.
        targets: Observations that are attacked at once.
        restarts: Starts of each.
        processes: That do the same, at the same time.
        threads: Of each process.
        steps: Of the shorter of two runs; the other takes three times as many, and the difference is what counts, so
            that reading the observation and inferring its label do not.
    """

    tool: str
    model: str
    steps: int
    targets: int = 1
    restarts: int = 1
    processes: int = 1
    threads: int = 1

    def step(self) -> Figures:
        """Of one step of one target and start, in this process."""
        self._begin()
        short, long = (self._timed(steps) for steps in (self.steps, 3 * self.steps))
        return Figures((long - short) / (2 * self.steps * self.targets * self.restarts), _resident())

    def job(self) -> Figures:
        """Of one target, from its observation to its picture, in this process; imports and compiling are done."""
        self._begin()
        return Figures(self._timed(self.steps) / self.targets, _resident())

    def _begin(self) -> None:
        torch.set_num_threads(self.threads)
        heap.keep_freed()
        self._run(2)

    def _timed(self, steps: int) -> float:
        began = time.perf_counter()
        self._run(steps)
        return time.perf_counter() - began

    def _run(self, steps: int) -> None:
        cases = [case(self.model, index) for index in range(self.targets)]
        if self.tool == "breaching":
            for index, one in enumerate(cases):
                breaching(one.seen, one.model, {"steps": steps}, None, index)
            return
        attack = ATTACKS["inverting_gradients"](steps=steps, restarts=self.restarts, **SAME)
        rngs = [derive(index, "attack") for index in range(self.targets)]
        with WAY[self.tool]():
            attack.batched([one.seen for one in cases], cases[0].model, rngs)


def looped() -> AbstractContextManager[object]:
    """Inside, gradients are taken trial by trial, as a textbook does."""
    return patch("attacks.problem.fastest", lambda model, state, _: Looped(model, state))


WAY: Mapping[str, Callable[[], AbstractContextManager[object]]] = MappingProxyType(
    {
        "fl-sim": nullcontext,
        "looped": looped,
        "compiled": lambda: compiling(cache_dir() / "compiled"),
    }
)


def measured(lap: Lap, what: Callable[[Lap], Figures] = Lap.step) -> Figures:
    """Seconds between two ends of ``what`` anywhere on the machine, and the memory of all processes."""
    with ProcessPoolExecutor(lap.processes, mp_context=get_context("spawn")) as pool:
        each = list(pool.map(what, [lap] * lap.processes))
    return Figures(1 / sum(1 / one.seconds for one in each), sum(one.mebibytes for one in each))


def _resident() -> float:
    """The most of this process so far; Linux only, and unlike ``getrusage`` not its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
