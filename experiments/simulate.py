"""Stage one: the federation. Leaves observations, training rows and a checkpoint a round."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from flwr.app import Context, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import nn

from experiments.build import Cell
from experiments.watch import Watch
from fl_sim.core.types import Observation
from fl_sim.data.clients import ClientData
from fl_sim.federation import wire
from fl_sim.federation.client import ClientJob, client_app
from fl_sim.federation.engine import Engine
from fl_sim.federation.intercept import Intercept, Sink
from fl_sim.federation.server import (
    Round,
    Schedule,
    build_strategy,
    memory_of,
    recall,
    roll_call,
    train,
)
from fl_sim.runtime.cells import CellStore
from fl_sim.runtime.residuals import Residuals
from fl_sim.runtime.store import RunStore
from fl_sim.runtime.writer import Writer
from fl_sim.training.local import State, evaluate, single_threaded, state_of


@dataclass(frozen=True)
class CellJobs:
    """Looks a client's job up by the cell named in the message; travels with the client app."""

    jobs: Mapping[str, ClientJob]

    def __call__(self, message: Message, context: Context) -> ClientJob:
        del context
        return self.jobs[str(message.content.config_records[wire.CONFIG][wire.CELL])]


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """Trains the cells of a study that are not trained yet, all in one session of the engine.

    Args:
        data_dir: Where data sets are looked for first.
        sink: Given a round's observations while they are written; may block, and the simulation waits.
        finish: Called while the engine still runs: what works on Flower's Ray has to end before it does.

    Files are written meanwhile, in order: a round's observations and its row are on the disk before the checkpoint that
    makes it count, and that before the round after the next begins. What a crash cuts off is trained again.
    """

    store: RunStore
    cells: Sequence[Cell]
    data_dir: str | None
    sink: Callable[[Cell, Sequence[Observation]], None]
    finish: Callable[[], None]
    watch: Watch

    def __call__(self, engine: Engine) -> None:
        if todo := [cell for cell in self.cells if not trained(self.store.cell(cell.folder), cell)]:
            jobs = {cell.folder: self._job(cell) for cell in todo}

            def main(grid: Grid) -> None:
                nodes = roll_call(grid, most, limit)
                with Writer() as write:
                    for cell in todo:
                        self._federate(grid, cell, jobs[cell.folder], nodes, write)
                self.finish()

            most = max(cell.study.federation.clients for cell in todo)
            limit = max(cell.study.runtime.start_timeout for cell in todo)
            engine(main, client_app(CellJobs(jobs)), most)

    def _job(self, cell: Cell) -> ClientJob:
        """With a folder for what its clients keep from round to round."""
        folder = self.store.cell(cell.folder).path / "clients"
        return replace(cell.job(self.data_dir), memory=Residuals(folder.absolute()))

    def _federate(self, grid: Grid, cell: Cell, job: ClientJob, nodes: Mapping[int, int], write: Writer) -> None:
        """Train one cell, from its last checkpoint if there is one."""
        inner, place = _strategy(cell), self.store.cell(cell.folder)
        done, state, memory = place.checkpoint() or (0, state_of(job.model()), {})
        recall(inner, memory)
        data = cell.data(self.data_dir)
        test = Tester(cell, data, job.model(), self.watch)
        if done == 0:
            write(partial(place.add_training, test(0, state)))

        seen, attacked = list[Observation](), set(cell.attacked_rounds(self.data_dir))

        def see(one: Observation) -> None:
            if one.round in attacked and targeted(cell, one):
                write(partial(place.save_observation, one))
                seen.append(one)

        def on_round(finished: Round) -> None:
            self.sink(cell, tuple(seen))
            seen.clear()
            write(partial(place.add_training, test(finished.number, finished.state, finished)))
            write(partial(place.save_checkpoint, finished.number, finished.state, memory_of(inner)))
            write.mark()

        members = {node: client for node, client in nodes.items() if client < cell.study.federation.clients}
        spy = self._intercept(cell, job, inner, members, see)
        train(grid, spy, state, members, _schedule(cell, done), on_round)

    def _intercept(
        self, cell: Cell, job: ClientJob, inner: Strategy, clients: Mapping[int, int], sink: Sink
    ) -> Intercept:
        adversary = cell.study.adversary
        return Intercept(
            inner,
            sink,
            task=cell.data(self.data_dir).task(),
            protocol=job.protocol if adversary.protocol else None,
            reader=wire.Reader(job.update_defenses, job.protocol),
            view=adversary.view,
            clients=clients,
        )


def _strategy(cell: Cell) -> Strategy:
    federation = cell.study.federation
    cohort = federation.cohort or federation.clients
    return build_strategy(federation.strategy, cohort, federation.strategy_options, cell.study.seed)


def _schedule(cell: Cell, done: int) -> Schedule:
    """The rounds after ``done``."""
    federation = cell.study.federation
    return Schedule(
        first=done + 1,
        last=federation.rounds,
        clients=federation.clients,
        cohort=federation.cohort or federation.clients,
        seed=cell.study.seed,
        timeout=federation.timeout,
        config={wire.CELL: cell.folder},
    )


@dataclass(frozen=True)
class Tester:
    """Tests the global model after a round; gives the round's row."""

    cell: Cell
    data: ClientData
    model: nn.Module
    watch: Watch

    def __call__(self, number: int, state: State, finished: Round | None = None) -> dict[str, object]:
        with single_threaded():
            loss, accuracy = evaluate(self.model, state, self.data.test(self.cell.study.evaluation.test_images))
        self.watch.round(self.cell, number, accuracy)
        row = {"round": number, "loss": finite(loss), "accuracy": accuracy, "images": self._images(finished)}
        return row | _row(finished)

    def _images(self, finished: Round | None) -> int:
        """How many the round's clients trained on, each as often as it was used."""
        protocol = self.cell.protocol()
        clients = finished.clients if finished else ()
        return sum(protocol.images(len(self.data.holdings(client))) for client in clients)


def trained(place: CellStore, cell: Cell) -> bool:
    return cell.rounds_done(place) >= cell.study.federation.rounds


def targeted(cell: Cell, seen: Observation) -> bool:
    """Whether the study attacks this client, or all of them together."""
    clients = cell.study.adversary.clients
    return clients is None or len(seen.members) > 1 or seen.client in clients


def finite(value: float) -> float | None:
    """JSON has no NaN; a figure that is none is null."""
    return value if math.isfinite(value) else None


def _row(finished: Round | None) -> dict[str, object]:
    if finished is None:
        return {"train_loss": None, "bytes_up": 0, "bytes_down": 0, "seconds": 0.0, "clients": [], "refused": []}
    return {
        "train_loss": None if finished.train_loss is None else finite(finished.train_loss),
        "bytes_up": finished.bytes_up,
        "bytes_down": finished.bytes_down,
        "seconds": round(finished.seconds, 4),
        "clients": list(finished.clients),
        "refused": [{"client": r.client, "reason": r.reason} for r in finished.refused],
    }
