"""A study from top to bottom. Each stage reads what the one before it left in the run folder, and can be run alone.

study.toml -> simulate -> observations -> attack -> reconstructions -> evaluate -> records.jsonl -> report.html
"""

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from experiments import config
from experiments.attack import AttackJob, AttackStage, Work, counted, expected_jobs, unattacked
from experiments.audit.cell import FOLDER, AuditCell, repeated
from experiments.build import Cell
from experiments.check import check
from experiments.config import Study
from experiments.evaluate import Evaluation
from experiments.parts import AttackPart
from experiments.simulate import Simulation, trained
from experiments.watch import Watch
from fl_sim.core.errors import ConfigError, StoreError
from fl_sim.core.types import Observation
from fl_sim.federation.engine import Engine, InProcess, RaySimulation
from fl_sim.runtime.machines import processors
from fl_sim.runtime.pool import InlinePool, Pool, RayPool, RaySession
from fl_sim.runtime.store import RunStore

Executor = Literal["ray", "inline"]

_BESIDE = 2  # clients at a time, where they share a GPU with an attack
_VERSIONS = ("fl-sim", "flwr", "ray", "torch", "torchvision", "numpy", "torchmetrics", "lpips", "scikit-learn")


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _VERSIONS}}


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder that is held by this process, with the study it was made by.

    Args:
        executor: ``ray``: Flower's simulation and attack actors; ``inline``: all here. The records are equal.
        data_dir: Where data sets are looked for first.
    """

    store: RunStore
    study: Study
    cells: Sequence[Cell]
    executor: Executor
    data_dir: str | None

    @property
    def imported(self) -> bool:
        """Whether the updates were recorded elsewhere."""
        return any(isinstance(cell, AuditCell) for cell in self.cells)

    def expected(self) -> tuple[int, int]:
        """Rounds and attack jobs that the study asks for."""
        rounds = sum(cell.study.federation.rounds for cell in self.cells)
        return rounds, sum(expected_jobs(cell, self.data_dir) for cell in self.cells)

    def done(self) -> tuple[int, int, int]:
        """Rounds, attack jobs and failed attack jobs that are on the disk."""
        ended, failed = counted(self.store, self.cells)
        return sum(cell.rounds_done(self.store.cell(cell.folder)) for cell in self.cells), ended, failed

    def progress(self) -> dict[str, int]:
        """What is expected and what earlier sessions left, as :class:`experiments.watch.Bars` takes it."""
        (rounds, attacks), (rounds_done, attacks_done, _) = self.expected(), self.done()
        done = {"rounds_done": rounds_done, "attacks_done": attacks_done, "judged": len(list(self.store.records()))}
        judgements = sum(cell.expected_observations(self.data_dir) * len(cell.reported()) for cell in self.cells)
        return {"rounds": rounds, "attacks": attacks, "judgements": judgements, **done}

    def finished(self) -> bool:
        """Whether every round is trained and every attack has ended; replies that were refused have no attack."""
        if not all(trained(self.store.cell(cell.folder), cell) for cell in self.cells):
            return False
        return not any(unattacked(self.store.cell(cell.folder), cell) for cell in self.cells)

    def on_cluster(self, address: str) -> "Run":
        """The same, with its Ray at ``address``; the run folder does not say so."""
        runtime = self.study.runtime.model_copy(update={"ray_address": address})
        return replace(self, study=self.study.model_copy(update={"runtime": runtime}))

    def simulate_and_attack(self, watch: Watch) -> None:
        """Train what is not trained; attack each observation as it comes, and those of earlier sessions."""
        if self.finished():
            return
        with self._ray():
            self.simulate_on(self._engine(), watch)

    def simulate_on(self, engine: Engine, watch: Watch) -> None:
        """As :meth:`simulate_and_attack`, on an engine that is there already."""
        stage = self._attacks(watch)
        stage.offer_all()
        self._simulation(watch, stage.offer, stage.finish)(engine)
        stage.drain()

    def simulate(self, watch: Watch) -> None:
        with self._ray():
            self._simulation(watch, _nothing, _nothing)(self._engine())

    def attack(self, watch: Watch) -> None:
        stage = self._attacks(watch)
        if stage.idle():
            return
        with self._ray():
            stage.offer_all()
            stage.drain()

    def evaluate(self, watch: Watch) -> None:
        Evaluation(self.store, self.cells, self.data_dir, versions(), watch)()

    def _simulation(
        self, watch: Watch, sink: Callable[[Cell, Sequence[Observation]], None], finish: Callable[[], None]
    ) -> Simulation:
        return Simulation(
            store=self.store, cells=self.cells, data_dir=self.data_dir, sink=sink, finish=finish, watch=watch
        )

    def _attacks(self, watch: Watch) -> AttackStage:
        return AttackStage(
            store=self.store, cells=self.cells, data_dir=self.data_dir, watch=watch, make_pool=self._pool
        )

    def _engine(self) -> Engine:
        if self.executor == "inline":
            return InProcess()
        return RaySimulation(cpus=self._cpus, client_gpus=self.study.runtime.client_gpus)

    @property
    def _cpus(self) -> int:
        """One for each client at a time."""
        return self.study.runtime.cpus or (_BESIDE if self._share_gpus else processors())

    @property
    def _share_gpus(self) -> bool:
        """Whether clients and attacks do: there the study says how many, or few leave one another room."""
        return self.study.runtime.gpus > 0 and self.study.runtime.client_gpus > 0

    def _pool(self, work: Work, done: Callable[[AttackJob, Any], None]) -> Pool[AttackJob]:
        if self.executor == "inline":
            return InlinePool(work, done, split=AttackJob.alone)
        r = self.study.runtime
        return RayPool(
            work,
            done,
            actors=r.actors or (1 if self._share_gpus else None),
            gpus=r.gpus,
            waiting=-(-r.waiting // r.together),
            timeout=self._timeout,
            split=AttackJob.alone,
        )

    def _timeout(self, job: AttackJob) -> float | None:
        each = self.study.runtime.job_timeout
        return None if each is None else each * len(job.seen)

    @contextmanager
    def _ray(self) -> Iterator[None]:
        if self.executor == "inline":
            yield
        else:
            with RaySession(cpus=self._cpus, address=self.study.runtime.ray_address):
                yield


def create(store: RunStore, study: Study, question: str, command: str, audit: Mapping[str, Any] | None = None) -> None:
    """Make ``store`` the run of ``study``, or find that it is already; attacks may have been added since.

    Args:
        audit: What the run was imported from, where nothing is simulated.

    Raises:
        StoreError: It is the run of another study.
    """
    if not store.exists():
        created = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        about: dict[str, Any] = {"question": question, "command": command, "created": created, "versions": versions()}
        _save(store, study, about if audit is None else about | {"audit": audit})
        return
    about = store.about()
    before = config.load_dict(about["study"], str(store.path))
    if before.hash() != study.hash():
        raise StoreError(
            f"{store.path} holds another study; it differs in {', '.join(_differences(before, study))}: "
            "choose another --out, or start over with --fresh"
        )
    _save(store, _merged(before, study), about)


def opened(store: RunStore, executor: Executor, data_dir: str | None) -> Run:
    """The run in a folder, checked and ready."""
    about = store.about()
    study = config.load_dict(about["study"], str(store.path))
    cells = [AuditCell.of(study, store.cell(FOLDER))] if "audit" in about else check(study, data_dir)
    return Run(store=store, study=study, cells=cells, executor=executor, data_dir=data_dir)


def add_attack(store: RunStore, part: AttackPart) -> None:
    """Add an attack to a run's study; the stage ``attack`` then runs it on the observations there are."""
    about = store.about()
    study = config.load_dict(about["study"], str(store.path))
    added = repeated(part) if "audit" in about else [part]
    _save(store, _merged(study, study.model_copy(update={"attacks": added})), about)


def default_folder(study: Study) -> Path:
    return Path("runs") / study.name


def _merged(before: Study, now: Study) -> Study:
    """``now`` with the attacks that only ``before`` had; one label cannot stand for two attacks."""
    kept = {part.key(): part for part in before.attacks}
    for part in now.attacks:
        if kept.setdefault(part.key(), part) != part:
            raise ConfigError(
                f"attack {part.key()!r} was run as {kept[part.key()]}, now it is {part}: give it another label"
            )
    return now.model_copy(update={"attacks": list(kept.values())})


def _save(store: RunStore, study: Study, about: dict[str, Any]) -> None:
    used = study.files()
    if changed := [path for path, before in about.get("files", {}).items() if used.get(path) != before]:
        raise StoreError(
            f"expected {', '.join(changed)} as it was when {store.path} was begun, it is another file now: put it "
            "back, give the new one another name and its attack another label, or start over with --fresh"
        )
    hashes = {"hash": study.hash(), "attacks_hash": study.attacks_hash()}
    store.save_about({**about, "study": study.as_dict(), **hashes, "files": used})


def _differences(before: Study, now: Study) -> list[str]:
    old, new = before.as_dict(), now.as_dict()
    return [key for key in old if key not in {"runtime", "attacks"} and old[key] != new[key]]


def _nothing(*_: object) -> None:
    """A stage that has no follower."""
