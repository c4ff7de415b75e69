"""Known-answer checks of this installation: what ``fl-sim selftest`` runs.

K1 to K16 are settings in which the answer is known in closed form, from arXiv 2111.04706 and from device Z of
:mod:`experiments.checks.zero`; each is measured with the real attacks, defenses and metrics.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import MappingProxyType

from experiments.checks import ball, calibration, inputs, layers, linearised, plumbing, zero
from experiments.checks.answer import Answer, Check
from fl_sim.training.local import single_threaded

CHECKS: Mapping[str, Callable[[], Answer]] = MappingProxyType(
    {
        **zero.CHECKS,
        **ball.CHECKS,
        **layers.CHECKS,
        **inputs.CHECKS,
        **calibration.CHECKS,
        **linearised.CHECKS,
        **plumbing.CHECKS,
    }
)


def run_checks(processes: int = 1) -> Iterator[Check]:
    """Each check in its turn, as it is done; several at once in ``processes`` of their own, if more than one."""
    if processes == 1:
        yield from map(run_check, CHECKS)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(run_check, CHECKS)


def run_check(name: str) -> Check:
    """On one thread; a figure that is no number fails."""
    began = time.monotonic()
    with single_threaded():
        answer = CHECKS[name]()
    passed = answer.low <= answer.figure <= answer.high
    return Check(name, *answer, passed=passed, seconds=round(time.monotonic() - began, 3))
