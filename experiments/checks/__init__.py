"""Known-answer checks of this installation: what ``fl-sim selftest`` runs.

K1 to K16 are settings in which the answer is known in closed form, from arXiv 2111.04706 and from device Z of
:mod:`experiments.checks.zero`; each is measured with the real attacks, defenses and metrics.
"""

import time
from collections.abc import Callable, Iterator, Mapping
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


def run_checks() -> Iterator[Check]:
    """Each check as it is done; a figure that is no number fails."""
    for name, check in CHECKS.items():
        began = time.monotonic()
        with single_threaded():
            answer = check()
        passed = answer.low <= answer.figure <= answer.high
        yield Check(name, *answer, passed=passed, seconds=round(time.monotonic() - began, 3))
