"""One bar for one long work."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Tick: TypeAlias = Callable[[str], None]
"""Told of each finished part of the work, with a note."""

_EVERY = 5.0  # seconds between two lines where there is no terminal


@contextmanager
def bar(console: Console, parts: int) -> Iterator[Tick]:
    """A bar on a terminal, a line now and then in a log."""
    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    last = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=parts)

        def tick(note: str) -> None:
            nonlocal last
            progress.update(task, advance=1, description=note)
            if not console.is_terminal and time.monotonic() - last > _EVERY:
                last = time.monotonic()
                console.print(note, markup=False, highlight=False)

        yield tick
