"""What this machine, and those of Ray, have room for. Ray is imported here once there is something to run on it."""

import os
from collections import Counter
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

_EACH = 4 << 30  # bytes for each processor: a client and an attack, each a process of about a GiB, and what they hold
_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container
_ROUNDING = 1e-6


def processors() -> int:
    """Those that this process may use, as its affinity and its container's quota allow; fewer where memory is short."""
    import joblib

    return max(1, min(int(joblib.cpu_count()), round(_memory() / _EACH)))


def _memory() -> int:
    """Bytes, of the machine or of the container."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = _LIMIT.read_text().strip()
    except OSError:
        return whole
    return min(whole, int(limit)) if limit.isdigit() else whole


def turns(machines: Sequence[dict[str, Any]], resource: str) -> list[str]:
    """The machines (Ray's records) that are alive, each as often as it has of ``resource`` and in turn with others."""
    places = [
        ((turn + 1) / count, machine["NodeID"])
        for machine in machines
        if machine["Alive"] and (count := int(machine["Resources"].get(resource, 0)))
        for turn in range(count)
    ]
    return [machine for _, machine in sorted(places)]


def room(gpus: float) -> int:
    """Attacks at a time that Ray's machines have room for: one a CPU or, where each takes ``gpus``, by their GPUs."""
    import ray

    known: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    if not gpus:
        return max(1, len(turns(known, "CPU")))
    on_each = Counter(turns(known, "GPU")).values()  # GPUs of each machine; shares of one are of one GPU
    return max(1, sum(count // ceil(gpus) if gpus >= 1 else count * int(1 / gpus + _ROUNDING) for count in on_each))


def place(number: int, gpus: float) -> Any:
    """Where actor ``number`` goes while that machine lives; Ray's own "SPREAD" may put all on one."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    known: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    machines = turns(known, "GPU" if gpus else "CPU")
    return NodeAffinitySchedulingStrategy(machines[number % len(machines)], soft=True) if machines else "SPREAD"
