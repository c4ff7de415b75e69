"""What all commands share: where they print, how errors are said, where the libraries' own output goes."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.markup import escape

from fl_sim.core.errors import ConfigError, FlSimError

OK, FAILED, WRONG, OVER = 0, 1, 2, 3

out, err = Console(highlight=False), Console(stderr=True, highlight=False)


def explain(error: Exception) -> int:
    """Our own errors and the file system's in words; anything else is a bug and shows where."""
    if isinstance(error, OSError) and error.filename is not None:
        err.print(f"[red]error:[/] {escape(str(error))}: free or choose another place", soft_wrap=True)
        return WRONG
    if not isinstance(error, FlSimError):
        err.print_exception()
        return FAILED
    for line in error.problems if isinstance(error, ConfigError) else [str(error)]:
        err.print(f"[red]error:[/] {escape(line)}", soft_wrap=True)
    return WRONG


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """What Flower, Ray and Python have to say goes to a file, not between the progress bars."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.captureWarnings(capture=True)
    warnings.simplefilter("default")
    flower = logging.getLogger("flwr")
    flower.handlers.clear()
    root = logging.getLogger()
    root.addHandler(handler)
    flower.propagate = True
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
        logging.captureWarnings(capture=False)


def executor_named(name: str) -> Any:
    from experiments.pipeline import Executor

    if name not in get_args(Executor):
        raise ConfigError(f"--executor: expected one of {', '.join(get_args(Executor))}, got {name!r}")
    return name


def text_of(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())
