"""Freed memory stays until it is given back. In a process of its own: it is set once for all."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import resource, torch
from fl_sim.core import heap

def resident() -> int:
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) >> 10

def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(16 << 20)  # 64 MiB, taken and freed
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.ones(16 << 20)
mapped, idle = faults(), resident()
heap.keep_freed()
faults()  # the first few are new to the heap
kept, busy = faults(), resident()
heap.give_back()
print(mapped, kept, idle, busy, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own settings")
def test_what_is_freed_is_kept_until_it_is_given_back() -> None:
    root = Path(__file__).parents[2]
    said = subprocess.run([sys.executable, "-c", SCRIPT], cwd=root, capture_output=True, text=True, check=True).stdout
    mapped, kept, idle, busy, after = map(int, said.split())
    assert kept < mapped / 10  # pages that the system had to map
    assert busy > idle + 40  # MiB
    assert after < busy - 40
