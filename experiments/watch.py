"""What people see while work goes on: a bar a stage on a terminal, a line now and then in a log. Always on stderr."""

from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from experiments.build import Cell
from experiments.report.units import duration

_EVERY = 5.0  # seconds between two lines where there is no terminal
_OVER = 600.0  # seconds that an estimate of what is left looks back: attacks end in groups


class Watch(Protocol):
    """Told of everything that takes time."""

    def round(self, cell: Cell, number: int, accuracy: float) -> None: ...
    def attack(self, cell: Cell, attack: str, outcome: str) -> None: ...
    def judged(self) -> None: ...


class Silent:
    """Says nothing."""

    def round(self, cell: Cell, number: int, accuracy: float) -> None:
        """Nothing."""

    def attack(self, cell: Cell, attack: str, outcome: str) -> None:
        """Nothing."""

    def judged(self) -> None:
        """Nothing."""


class Bars:
    """Three bars: rounds, attacks, judgements; use as a context.

    Args:
        rounds, attacks, judgements: How many are expected in all.
        rounds_done, attacks_done, judged: Those that earlier sessions left.
    """

    def __init__(
        self,
        console: Console,
        *,
        rounds: int,
        attacks: int,
        judgements: int,
        rounds_done: int = 0,
        attacks_done: int = 0,
        judged: int = 0,
    ) -> None:
        self._console, self._last = console, console.get_time()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
            speed_estimate_period=_OVER,
        )
        self._rounds = self._progress.add_task("train", total=rounds, completed=rounds_done, note="")
        self._attacks = self._progress.add_task("attack", total=attacks, completed=attacks_done, note="")
        self._judged = self._progress.add_task("evaluate", total=judgements, completed=judged, note="")

    def round(self, cell: Cell, number: int, accuracy: float) -> None:
        note = f"{cell.name}: round {number}, accuracy {accuracy:.1%}"
        self._advance(self._rounds, note, step=int(number > 0))

    def attack(self, cell: Cell, attack: str, outcome: str) -> None:
        self._advance(self._attacks, f"{attack}: {outcome} ({cell.name})")

    def judged(self) -> None:
        self._advance(self._judged, "")

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _advance(self, bar: TaskID, note: str, step: int = 1) -> None:
        self._progress.update(bar, advance=step, note=note)
        if not self._console.is_terminal and self._console.get_time() - self._last > _EVERY:
            self._last = self._console.get_time()
            tasks = self._progress.tasks
            done = ", ".join(f"{t.description} {t.completed:g}/{t.total or 0:g}" for t in tasks)
            left = max(t.time_remaining or 0.0 for t in tasks)  # they go on side by side
            about = f", about {duration(left)} left" if left else ""
            self._console.print(f"{done}{about}  {note}", markup=False, highlight=False)
