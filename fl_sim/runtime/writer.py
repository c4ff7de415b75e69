"""Files are written beside the work that goes on."""

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TypeAlias

Task: TypeAlias = Callable[[], None]


class Writer:
    """A thread that does tasks in the order they were given, for the length of a ``with``, whose end waits for them.

    After a task that failed none is done, and after an error in the ``with`` none that has not begun: what a task
    relies on is there, or the task is not done. The next call, or the end, raises what a task raised.

    Args:
        waiting: Most tasks that wait; a call blocks beyond that.
    """

    def __init__(self, waiting: int = 16) -> None:
        self._tasks: queue.Queue[Task | threading.Event | None] = queue.Queue(maxsize=waiting)
        self._broken: list[BaseException] = []
        self._mark: threading.Event | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __call__(self, task: Task) -> None:
        self._raise_broken()
        self._tasks.put(task)

    def mark(self) -> None:
        """Wait for what was given before the last mark: no more than what lies between two marks is behind."""
        before, self._mark = self._mark, threading.Event()
        if before is not None:
            before.wait()
        self._raise_broken()
        self._tasks.put(self._mark)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self._broken.append(error)
        self._tasks.put(None)
        self._thread.join()
        if error is None:
            self._raise_broken()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            if isinstance(task, threading.Event):
                task.set()
            elif not self._broken:
                try:
                    task()
                except BaseException as error:
                    self._broken.append(error)

    def _raise_broken(self) -> None:
        if self._broken:
            raise self._broken[0]
