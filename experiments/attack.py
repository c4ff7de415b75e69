"""Stage two: the attacks. A job is one attack on observations of a round; each of these gets an answer or a reason."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby, islice
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Generator

from attacks.compilation import compiling, pays
from experiments.build import Cell, ModelSpec, attack
from experiments.knowledge import grant
from experiments.parts import AttackPart
from experiments.watch import Watch
from fl_sim.core import heap
from fl_sim.core.contracts import Attack
from fl_sim.core.places import cache_dir
from fl_sim.core.seeds import derive
from fl_sim.core.types import Observation, Reconstruction
from fl_sim.federation.client import ClientJob
from fl_sim.runtime.cells import CellStore, Key
from fl_sim.runtime.pool import Failure, Pool
from fl_sim.runtime.store import RunStore
from fl_sim.training.local import single_threaded

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class AttackJob:
    """All that one attack on a round's observations needs, picklable: it runs alike here and on any worker."""

    cell: Cell
    label: str
    attack: Attack
    model: ModelSpec
    seen: tuple[Observation, ...]
    gpu: bool
    compiled: bool

    def rng(self, seen: Observation) -> Generator:
        """The study's seed and the observation's place decide every draw."""
        return derive(self.cell.study.seed, "attack", self.label, seen.round, seen.client)

    def alone(self) -> "list[AttackJob]":
        """One job an observation."""
        return [replace(self, seen=(one,)) for one in self.seen]


def run_job(job: AttackJob) -> list[Reconstruction]:
    """What a worker does."""
    device = "cuda" if job.gpu and torch.cuda.is_available() else "cpu"
    folder = cache_dir() / "compiled" if job.compiled else None
    heap.keep_freed()
    try:
        with single_threaded(), compiling(folder):
            return job.attack.batched(job.seen, job.model(), [job.rng(one) for one in job.seen], device)
    finally:
        heap.give_back()


Work: TypeAlias = Callable[[AttackJob], list[Reconstruction]]


@dataclass(kw_only=True)
class AttackStage:
    """Makes the jobs that are still to be done, and keeps what comes back.

    ``pool`` is made by ``make_pool`` at the first job, because Ray may start only when a simulation does.
    """

    store: RunStore
    cells: Sequence[Cell]
    data_dir: str | None
    watch: Watch
    make_pool: Callable[[Work, Callable[[AttackJob, Any], None]], Pool[AttackJob]]
    _pool: Pool[AttackJob] | None = None
    _jobs: dict[str, ClientJob] = field(default_factory=dict)

    def offer(self, cell: Cell, seen: Sequence[Observation]) -> None:
        """Queue every attack of the study on a round's observations; waits while the queue is full.

        All but those that join rounds: they read the earlier ones from the disk, where these are by :meth:`finish`.
        Observations are attacked ``runtime.together`` at a time, in the clients' order. Where one of these has not been
        attacked all are, so that a reconstruction does not depend on where a session was cut off.
        """
        for some in _portions(seen, cell.study.runtime.together):
            self._offer(cell, some, [part for part in cell.study.attacks if not part.joint])

    def offer_all(self) -> None:
        """Every observation that earlier sessions left, of rounds that are whole: others will be trained again."""
        for cell, portions in self._left():
            seen = self.store.cell(cell.folder).observations(chain.from_iterable(portions))
            for some in portions:
                self._offer(cell, list(islice(seen, len(some))), cell.study.attacks)

    def finish(self) -> None:
        """All that is left, once every round is on the disk; waits for it."""
        self.drain()
        if any(part.joint for cell in self.cells for part in cell.study.attacks):
            self.offer_all()
            self.drain()

    def idle(self) -> bool:
        """Whether :meth:`offer_all` would find nothing to do."""
        return not any(portions for _, portions in self._left())

    def _left(self) -> Iterator[tuple[Cell, list[Sequence[Key]]]]:
        """Observations by portions, some of which some attack has not ended on; told by the names of files."""
        for cell in self.cells:
            place = self.store.cell(cell.folder)
            todo, whole = set(unattacked(place, cell)), cell.rounds_done(place)
            rounds = groupby(place.observation_keys(), lambda key: key.round)
            portions = [
                some
                for number, keys in rounds
                for some in _portions(list(keys), cell.study.runtime.together)
                if number <= whole and not todo.isdisjoint(some)
            ]
            yield cell, portions

    def _offer(self, cell: Cell, seen: Sequence[Observation], attacks: Sequence[AttackPart]) -> None:
        place, keys = self.store.cell(cell.folder), [key_of(one) for one in seen]
        parts = [part for part in attacks if not all(place.attempted(part.key(), key) for key in keys)]
        if not parts:
            return
        granted = self._granted(cell, seen)
        joined = self._with_earlier(cell, granted) if any(part.joint for part in parts) else []
        for part in parts:
            whole = self._job(cell, part, joined if part.joint else granted)
            for job in [whole] if whole.attack.work else whole.alone():
                if not all(place.attempted(part.key(), key_of(one)) for one in job.seen):
                    self._start().submit(job)

    def _granted(self, cell: Cell, seen: Iterable[Observation]) -> list[Observation]:
        client = self._jobs.setdefault(cell.folder, cell.job(self.data_dir))
        return [grant(cell, client, one) for one in seen]

    def _with_earlier(self, cell: Cell, seen: Sequence[Observation]) -> list[Observation]:
        """Each with its client's observations of earlier rounds, in their order; those of a round share its weights."""
        place = self.store.cell(cell.folder)
        keys = [key for one in seen for key in place.earlier(key_of(one))]
        found = dict(zip(sorted(set(keys)), self._granted(cell, place.observations(sorted(set(keys)))), strict=True))
        return [replace(one, earlier=tuple(found[key] for key in place.earlier(key_of(one)))) for one in seen]

    def drain(self) -> None:
        if self._pool is not None:
            self._pool.drain()

    def _start(self) -> Pool[AttackJob]:
        if self._pool is None:
            self._pool = self.make_pool(run_job, self._keep)
        return self._pool

    def _job(self, cell: Cell, part: AttackPart, seen: Sequence[Observation]) -> AttackJob:
        made, runtime, model = attack(part), cell.study.runtime, cell.model(seen[0].task)
        those = [one for one in self.cells if any(part.key() == other.key() for other in one.study.attacks)]
        work = made.work * sum(one.expected_observations(self.data_dir) for one in those)
        return AttackJob(
            cell=cell,
            label=part.key(),
            attack=made,
            model=model,
            seen=tuple(seen),
            gpu=runtime.gpus > 0,
            compiled={"always": made.work > 0, "never": False, "auto": pays(work, made.work, model())}[runtime.compile],
        )

    def _keep(self, job: AttackJob, results: list[Reconstruction] | Failure) -> None:
        place = self.store.cell(job.cell.folder)
        each: Sequence[Reconstruction | Failure] = (
            [results] * len(job.seen) if isinstance(results, Failure) else results
        )
        for seen, result in zip(job.seen, each, strict=True):
            key = key_of(seen)
            if place.attempted(job.label, key):
                continue
            if isinstance(result, Failure):
                place.save_failure(job.label, key, result.reason)
                self.watch.attack(job.cell, job.label, "failed")
            else:
                place.save_reconstruction(job.label, key, result)
                self.watch.attack(job.cell, job.label, result.outcome)


def key_of(seen: Observation) -> Key:
    return Key(seen.round, seen.client)


def _portions(items: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    return (items[first : first + most] for first in range(0, len(items), most))


def unattacked(place: CellStore, cell: Cell) -> list[Key]:
    """Observations on which some attack has not ended."""
    attacks = [part.key() for part in cell.study.attacks]
    return [key for key in place.observation_keys() if not all(place.attempted(attack, key) for attack in attacks)]


def counted(store: RunStore, cells: Sequence[Cell]) -> tuple[int, int]:
    """Attack jobs that have ended, and failures among them."""
    ended = failed = 0
    for cell in cells:
        place = store.cell(cell.folder)
        jobs = [(part.key(), key) for key in place.observation_keys() for part in cell.study.attacks]
        ended += sum(place.attempted(*job) for job in jobs)
        failed += sum(place.failed(*job) for job in jobs)
    return ended, failed


def expected_jobs(cell: Cell, data_dir: str | None) -> int:
    """How many attacks a cell asks for; fewer where replies are refused."""
    return cell.expected_observations(data_dir) * len(cell.study.attacks)
