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
from attacks.objective import Matching, Terms
from attacks.posterior import PosteriorSearch
from attacks.problem import Problem
from benchmarks.case import case
from benchmarks.plan import SAME
from fl_sim.core import heap
from fl_sim.core.seeds import derive
from fl_sim.training.local import single_threaded

TOGETHER = (("convnet", 1), ("convnet", 2), ("resnet18", 1), ("resnet18", 4), ("cnn", 1), ("cnn", 8), ("lenet", 16))
"""Networks, and targets that are attacked together."""


def measure() -> Iterator[tuple[str, dict[str, Any]]]:
    """On one thread: operations of a step as convolutions would need them, and rates of large products meanwhile."""
    heap.keep_freed()
    with single_threaded():
        for model, targets in TOGETHER:
            count, step, shares = _operations(model), _step(model, targets), list[dict[str, float]]()
            executed = _counted(step) / targets
            for _ in range(7):
                seconds, matmul, convolution = _seconds(step) / targets, _matmul_rate(), _convolution_rate()
                shares.append({"ms": 1000 * seconds, "matmul": matmul / 1e9, "convolution": convolution / 1e9})
            middle = {name: round(median(share[name] for share in shares), 2) for name in shares[0]}
            limit = 1e9 * max(middle["matmul"], middle["convolution"])
            share = round(count / limit / (middle["ms"] / 1000), 3)
            figures = {"targets": targets, "gflop": round(count / 1e9, 3), "executed": round(executed / 1e9, 3)}
            figures |= {**middle, "share": share, "busy": round(share * executed / count, 3)}
            yield f"{model}, {targets} together", {"model": model, **figures}


def _operations(model: str) -> int:
    """Of one target's step, its convolutions computed directly and its pooling not by products."""
    directly = patch("attacks.gradients.winograd.suits", lambda _: False)
    with directly, patch("attacks.gradients.layers._tiles", lambda _: False):
        return _counted(_step(model, 1))


def _counted(step: Callable[[], object]) -> int:
    """Operations of a step, as PyTorch counts those of products and convolutions."""
    step()  # the network is lowered at the first step
    with FlopCounterMode(display=False) as counted:
        step()
    return int(counted.get_total_flops())


def _step(model: str, targets: int) -> Callable[[], object]:
    """One step of ``inverting_gradients``, without the solver."""
    attack = ATTACKS["inverting_gradients"](**SAME)
    assert isinstance(attack, PosteriorSearch)
    cases = [case(model, index) for index in range(targets)]
    problems = [Problem.of(one.seen, cases[0].model, derive(0), "cpu") for one in cases]
    terms = Terms(likelihood=attack.likelihood, priors=attack.priors, variables=attack.variables)
    objective = Matching(terms, [problems[0].shared(problem) for problem in problems], 1)
    starts = attack.variables.start(problems[0], targets, derive(0))
    point = {name: v.requires_grad_() for name, v in starts.items()}
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
