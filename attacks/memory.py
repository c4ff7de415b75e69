"""What to do when a batch of searches is too large for the memory: halve it."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Generator

J = TypeVar("J")
R = TypeVar("R")
_CPU = ("not enough memory", "can't allocate memory", "DefaultCPUAllocator")


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
    """Whether an allocator, of a GPU or of the C library, said so."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _CPU)
