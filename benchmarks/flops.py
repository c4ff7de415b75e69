"""Which share of the processor's limit a step reaches."""

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch.nn.functional import conv2d
from torch.utils.flop_counter import FlopCounterMode

from attacks import ATTACKS
from attacks.posterior import PosteriorSearch
from attacks.problem import Problem
from benchmarks.case import case
from benchmarks.stopwatch import SAME
from fl_sim.core.seeds import derive
from fl_sim.runtime.memory import keep_freed_memory
from fl_sim.training.local import single_threaded


def measure() -> Iterator[tuple[str, dict[str, Any]]]:
    """On one thread: operations of a step as convolutions would need them, and rates of large products meanwhile."""
    keep_freed_memory()
    with single_threaded():
        for model in ("convnet", "resnet18", "cnn"):
            with (
                patch("attacks.gradients.winograd.suits", lambda _: False),
                patch("attacks.gradients.layers._tiles", lambda _: False),
            ):
                direct = _step(model)
                direct()  # the network is lowered at the first step
            with FlopCounterMode(display=False) as counted:
                direct()
            step, shares = _step(model), list[dict[str, float]]()
            for _ in range(7):
                seconds, matmul, convolution = _seconds(step), _matmul_rate(), _convolution_rate()
                shares.append({"ms": 1000 * seconds, "matmul": matmul / 1e9, "convolution": convolution / 1e9})
            middle = {name: round(median(share[name] for share in shares), 2) for name in shares[0]}
            limit = 1e9 * max(middle["matmul"], middle["convolution"])
            share = counted.get_total_flops() / limit / (middle["ms"] / 1000)
            yield model, {"gflop": round(counted.get_total_flops() / 1e9, 3), **middle, "share": round(share, 3)}


def _step(model: str) -> Callable[[], object]:
    """One step of ``inverting_gradients`` on one target, without the solver."""
    attack = ATTACKS["inverting_gradients"](**SAME)
    assert isinstance(attack, PosteriorSearch)
    one = case(model, 0)
    problem = Problem.of(one.seen, one.model, derive(0), "cpu")
    point = {k: v.requires_grad_() for k, v in attack.variables.start(problem, 1, derive(0)).items()}
    objective = attack.objective(problem, derive(0))
    return lambda: torch.autograd.grad(objective(point, 1.0).descended.sum(), list(point.values()))


def _matmul_rate() -> float:
    a = torch.rand(1024, 1024)
    return 2 * 1024**3 / _seconds(lambda: a @ a)


def _convolution_rate() -> float:
    images, weight = torch.rand(1, 256, 32, 32), torch.rand(256, 256, 3, 3)
    return 2 * 256 * 256 * 9 * 1024 / _seconds(lambda: conv2d(images, weight, padding=1))


def _seconds(work: Callable[[], object], times: int = 4) -> float:
    work()
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times
