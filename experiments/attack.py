"""Stage two: the attacks. Each job is one attack on one observation; each leaves a reconstruction or a failure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from experiments.build import Cell, ModelSpec, attack
from experiments.knowledge import grant
from experiments.parts import AttackPart
from experiments.watch import Watch
from fl_sim.core.contracts import Attack
from fl_sim.core.seeds import derive
from fl_sim.core.types import Observation, Reconstruction
from fl_sim.federation.client import ClientJob
from fl_sim.runtime.cells import CellStore, Key
from fl_sim.runtime.memory import keep_freed_memory
from fl_sim.runtime.pool import Failure, Pool
from fl_sim.runtime.store import RunStore
from fl_sim.training.local import single_threaded


@dataclass(frozen=True, kw_only=True)
class AttackJob:
    """All that one attack needs, picklable: it runs alike here and on any worker."""

    cell: Cell
    label: str
    attack: Attack
    model: ModelSpec
    seen: Observation
    gpu: bool

    @property
    def key(self) -> Key:
        return Key(self.seen.round, self.seen.client)


def run_job(job: AttackJob) -> Reconstruction:
    """What a worker does; the study's seed and the observation's place decide every draw."""
    rng = derive(job.cell.study.seed, "attack", job.label, job.seen.round, job.seen.client)
    device = "cuda" if job.gpu and torch.cuda.is_available() else "cpu"
    keep_freed_memory()
    with single_threaded():
        return job.attack(job.seen, job.model(), rng, device)


@dataclass(kw_only=True)
class AttackStage:
    """Makes the jobs that are still to be done, and keeps what comes back.

    ``pool`` is made by ``make_pool`` at the first job, because Ray may start only when a simulation does.
    """

    store: RunStore
    data_dir: str | None
    watch: Watch
    make_pool: Callable[[Callable[[AttackJob], Reconstruction], Callable[[AttackJob, Any], None]], Pool[AttackJob]]
    _pool: Pool[AttackJob] | None = None
    _jobs: dict[str, ClientJob] = field(default_factory=dict)

    def offer(self, cell: Cell, seen: Observation) -> None:
        """Queue every attack of the study on ``seen`` that has not ended yet; waits while the queue is full."""
        place = self.store.cell(cell.folder)
        key = Key(seen.round, seen.client)
        todo = [part for part in cell.study.attacks if not place.attempted(part.key(), key)]
        if not todo:
            return
        job = self._jobs.setdefault(cell.folder, cell.job(self.data_dir))
        granted = grant(cell, job, seen)
        for part in todo:
            self._start().submit(self._job(cell, part, granted))

    def offer_all(self, cells: Sequence[Cell]) -> None:
        """Every observation that earlier sessions left."""
        for cell in cells:
            place = self.store.cell(cell.folder)
            for key in unattacked(place, cell):
                self.offer(cell, place.observation(key))

    def drain(self) -> None:
        if self._pool is not None:
            self._pool.drain()

    def _start(self) -> Pool[AttackJob]:
        if self._pool is None:
            self._pool = self.make_pool(run_job, self._keep)
        return self._pool

    def _job(self, cell: Cell, part: AttackPart, seen: Observation) -> AttackJob:
        model = cell.model(seen.task)
        gpu = cell.study.runtime.gpus > 0
        return AttackJob(cell=cell, label=part.key(), attack=attack(part), model=model, seen=seen, gpu=gpu)

    def _keep(self, job: AttackJob, result: Reconstruction | Failure) -> None:
        place = self.store.cell(job.cell.folder)
        if isinstance(result, Failure):
            place.save_failure(job.label, job.key, result.reason)
            self.watch.attack(job.cell, job.label, "failed")
        else:
            place.save_reconstruction(job.label, job.key, result)
            self.watch.attack(job.cell, job.label, result.outcome)


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


def expected_jobs(cell: Cell) -> int:
    """How many attacks a cell asks for; fewer where replies are refused."""
    study = cell.study
    rounds = len(study.adversary.rounds or range(study.federation.rounds))
    if study.adversary.view == "aggregate":
        return rounds * len(study.attacks)
    cohort = study.federation.cohort or study.federation.clients
    clients = min(cohort, len(study.adversary.clients or range(cohort)))
    return rounds * clients * len(study.attacks)
