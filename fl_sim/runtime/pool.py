"""Where jobs run. Ray is imported here and by what is imported here, once there is something to run on it."""

import logging
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from fl_sim.core.errors import FlSimError
from fl_sim.runtime.machines import place, room

J = TypeVar("J")
R = TypeVar("R")
J_contra = TypeVar("J_contra", contravariant=True)
_PLACED = 600  # seconds in which an actor must find its place


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that has no result, and why."""

    reason: str


class Pool(Protocol[J_contra]):
    """Runs jobs and hands each result to the ``done`` it was made with, one at a time."""

    def submit(self, job: J_contra) -> None:
        """Queue a job; waits while the queue is full, so that whoever makes jobs is slowed instead of memory filled."""

    def drain(self) -> None:
        """Wait until every job is done."""


Split: TypeAlias = Callable[[J], Sequence[J]]


def whole(job: J) -> Sequence[J]:
    """A job that has no parts."""
    return (job,)


def attempts(run: Callable[[J], R | Failure], job: J, split: Split[J]) -> Iterator[tuple[J, R | Failure]]:
    """A job with its result or, where it has failed and has parts, each part with the result of its own run."""
    result, parts = run(job), split(job)
    if isinstance(result, Failure) and len(parts) > 1:
        yield from ((part, run(part)) for part in parts)
    else:
        yield job, result


class InlinePool(Generic[J, R]):
    """In this process, at once: for tests, debuggers and small studies."""

    def __init__(
        self, work: Callable[[J], R], done: Callable[[J, R | Failure], None], *, split: Split[J] = whole
    ) -> None:
        self._work, self._done, self._split = work, done, split

    def submit(self, job: J) -> None:
        for part, result in attempts(self._run, job, self._split):
            self._done(part, result)

    def drain(self) -> None:
        """Nothing waits."""

    def _run(self, job: J) -> R | Failure:
        try:
            return self._work(job)
        except Exception as error:
            return Failure(f"{type(error).__name__}: {error}")


class RayPool(Generic[J, R]):
    """On Ray actors, beside whatever else Ray runs; one thread of this process feeds each actor.

    Actors ask Ray for no CPU, so they neither starve nor wait for Flower's clients (whose pool counts all CPUs for
    itself); how many there are is the limit.

    Args:
        work: Called in the actors; importable there by name.
        done: Called in this process with a job and its result or failure.
        actors: How many work at a time; ``None``: what Ray has room for (:func:`room`).
        gpus: Share of a GPU each takes; 0: none.
        waiting: Most jobs that wait; :meth:`submit` blocks beyond that.
        timeout: Seconds that a job may take before its actor is killed and it has failed; ``None``: no limit.
        split: The parts of a job that are tried one by one where the whole has failed.

    An actor that dies is replaced and its job tried once more. Large tensors that several jobs hold are sent once, so
    nobody may write to them.
    """

    def __init__(
        self,
        work: Callable[[J], R],
        done: Callable[[J, R | Failure], None],
        *,
        actors: int | None,
        gpus: float = 0.0,
        waiting: int = 16,
        timeout: Callable[[J], float | None] = lambda _: None,
        split: Split[J] = whole,
    ) -> None:
        from fl_sim.runtime.parcels import Packer

        self._work, self._done, self._pack = work, done, Packer()
        self._gpus, self._timeout, self._split = gpus, timeout, split
        self._queue: queue.Queue[J] = queue.Queue(maxsize=waiting)
        self._lock = threading.Lock()
        self._broken: list[BaseException] = []
        for number in range(actors or room(gpus)):
            threading.Thread(target=self._feed, args=(number,), daemon=True).start()

    def submit(self, job: J) -> None:
        self._raise_broken()
        self._queue.put(job)

    def drain(self) -> None:
        self._queue.join()
        self._raise_broken()

    def _feed(self, number: int) -> None:
        actor: Any = None

        def run(job: J) -> R | Failure:
            nonlocal actor
            actor, result = self._attempt(number, actor, job)
            return result

        while True:
            job = self._queue.get()
            try:
                if self._broken:
                    continue  # whoever waits is told at once
                for part, result in attempts(run, job, self._split):
                    with self._lock:
                        self._done(part, result)
            except BaseException as error:
                self._broken.append(error)
            finally:
                self._queue.task_done()

    def _attempt(self, number: int, actor: Any, job: J, tries: int = 2) -> tuple[Any, R | Failure]:
        """The job's result, and the actor to go on with (``None``: make a new one)."""
        import ray

        seconds, parcel = self._timeout(job), self._pack(job)
        for left in reversed(range(tries)):
            actor = actor or self._new_actor(number)
            try:
                return actor, ray.get(actor.run.remote(parcel), timeout=seconds)
            except ray.exceptions.GetTimeoutError:
                ray.kill(actor)
                return None, Failure(f"timeout: took more than {seconds:g} s")
            except ray.exceptions.RayTaskError as error:
                return actor, Failure(f"{type(error.cause).__name__}: {error.cause}")
            except ray.exceptions.RayActorError as error:
                logging.getLogger(__name__).warning("an actor died, %d tries left: %s", left, error)
                actor, reason = None, str(error).partition("\n")[0]
        return None, Failure(f"its actor died {tries} times: {reason}")

    def _new_actor(self, number: int) -> Any:
        import ray

        from fl_sim.runtime.parcels import Parcel, unpacked

        work = self._work

        class Worker:
            def ready(self) -> bool:
                return True

            def run(self, parcel: Parcel) -> R:
                return work(unpacked(parcel))

        asked = {"num_cpus": 0, "num_gpus": self._gpus, "memory": 1}  # a byte: who asks for nothing goes anywhere
        actor: Any = ray.remote(Worker).options(**asked, scheduling_strategy=place(number, self._gpus)).remote()
        try:
            ray.get(actor.ready.remote(), timeout=_PLACED)  # a job's time does not count its actor's start
        except ray.exceptions.GetTimeoutError as error:
            ray.kill(actor)
            raise FlSimError(
                f"Ray found no room for attack actor {number + 1} in {_PLACED} s, which takes {self._gpus:g} of a GPU: "
                "lower runtime.actors, runtime.gpus or runtime.client_gpus"
            ) from error
        return actor

    def _raise_broken(self) -> None:
        if self._broken:
            raise self._broken[0]


class RaySession:
    """Ray for as long as the ``with`` lasts: one's own on loopback, or an existing cluster at ``address``, never else.

    Where this process runs Ray already (Flower's simulation does), that one is used and left to whoever started it.
    """

    def __init__(self, *, cpus: int, address: str | None = None) -> None:
        self._cpus, self._address, self._own = cpus, address, False

    def __enter__(self) -> "RaySession":
        if self._address is not None:
            # fl_sim keeps Ray on loopback, where a cluster is not
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1"
        import ray

        self._own = not ray.is_initialized()
        common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self._own and self._address is None:
            paths = {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}}  # for one's own modules
            ray.init("local", num_cpus=self._cpus, include_dashboard=False, runtime_env=paths, **common)
        elif self._own:
            ray.init(self._address, **common)
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        if self._own:
            ray.shutdown()
