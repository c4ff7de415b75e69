"""What to do when a batch of searches is too large for the memory: halve it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Generator, Tensor

from fl_sim.core import heap
from fl_sim.core.types import Tensors

J = TypeVar("J")
R = TypeVar("R")
_GROUP = Path("/sys/fs/cgroup")
_LIBRARIES = ("ALLOC_FAILED", "ALLOCATION_FAILED")  # in the names of cuBLAS's and cuDNN's statuses
_ENDED = ("not enough memory", "can't allocate memory", "DefaultCPUAllocator", *_LIBRARIES)


def halved(
    search: Callable[[Sequence[J], Sequence[Generator]], list[R]], items: Sequence[J], rngs: Sequence[Generator]
) -> list[R]:
    """``search`` of all items together, or of halves, and halves of these, where memory ends; of one: as it is.

    Every attempt draws the same: generators are put back to where they stood.
    """
    states = [rng.get_state() for rng in rngs]
    try:
        return search(items, rngs)
    except RuntimeError as error:
        if len(items) == 1 or not out_of_memory(error):
            raise
    for rng, state in zip(rngs, states, strict=True):
        rng.set_state(state)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = len(items) // 2
    return halved(search, items[:middle], rngs[:middle]) + halved(search, items[middle:], rngs[middle:])


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an allocator, of a GPU, of one of its libraries or of the C library, said so."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _ENDED)


def check_fits(
    objective: Callable[[dict[str, Tensor], float], object], start: Tensors, many: int, copies: int, device: str
) -> None:
    """Refuse a batch before it is begun, as an allocator would: on Linux the system kills instead of refusing.

    Args:
        objective: Of one, called at ``start`` up to its derivative: what that keeps is kept ``many`` times.
        copies: Of ``start``, that a solver keeps of each.

    Raises:
        torch.OutOfMemoryError: That is more than half of what is free; the other half is for other workers and for what
            comes and goes within a step.
    """
    point = {name: v.detach().requires_grad_() for name, v in start.items()}
    if (left := free(device)) is None:
        return
    each = kept_by(lambda: objective(point, 1.0)) + copies * sum(v.nbytes for v in start.values())
    if many * each > left / 2:
        raise torch.OutOfMemoryError(f"{many} observations at {each} bytes a step do not fit half of {left} free bytes")


def kept_by(step: Callable[[], object]) -> int:
    """Bytes that ``step`` keeps for its derivative, weights included."""
    sizes: dict[int, int] = {}
    held = list[Tensor]()

    def note(tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        held.append(tensor)
        return len(held) - 1

    try:
        with torch.autograd.graph.saved_tensors_hooks(note, held.__getitem__):
            step()
    finally:
        held.clear()  # nodes that held what they made would hold themselves: no collector sees that cycle
    return sum(sizes.values())


def free(device: str) -> int | None:
    """Bytes that can still be had on ``device``; ``None`` where the system does not say."""
    if device != "cpu":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    heap.give_back()  # what a search before has freed is free
    found = [figure for figure in (_available(), _of_group()) if figure is not None]
    return min(found, default=None)


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), None)


def _of_group() -> int | None:
    """Of the control group (version 2) that this process is in, as a container sees it."""
    try:
        limit, used = ((_GROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return None
    return None if limit == "max" else max(0, int(limit) - int(used))
