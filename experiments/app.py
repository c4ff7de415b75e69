"""Flower's entry points: ``flwr run .`` trains and attacks the study that the run's config names.

The config's keys are in pyproject.toml: ``study``, ``overrides``, ``out``; or ``text``, a whole study, which
``fl-sim deploy run`` sends to parties that do not share its files. Judging and the report need the truth, which the
server does not have: ``fl-sim evaluate OUT`` and ``fl-sim report OUT`` afterwards, where the data is.
"""

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp
from rich.console import Console

from experiments import config, pipeline
from experiments.build import Cell, cells
from experiments.config import Study
from experiments.deploy import parts, shares
from experiments.watch import Bars
from fl_sim.core.errors import ConfigError
from fl_sim.federation import wire
from fl_sim.federation.client import ClientJob
from fl_sim.federation.client import client_app as flower_client
from fl_sim.federation.engine import simulated
from fl_sim.federation.server import roll_call
from fl_sim.runtime.machines import processors
from fl_sim.runtime.pool import RaySession
from fl_sim.runtime.store import RunStore

server_app = ServerApp()


class Request(NamedTuple):
    """The study of a run: its text, where that is from, and what is changed in it."""

    text: str
    source: str
    overrides: tuple[str, ...]

    def study(self) -> Study:
        return config.load_dict(config.parse(self.text, self.source, self.overrides), self.source)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """The grid is here already, so the engine is just a call."""
    asked = request_of(context.run_config)
    study = asked.study()
    refuse_feedback(cells(study))
    with RunStore(Path(str(context.run_config.get("out") or pipeline.default_folder(study)))) as store:
        pipeline.create(store, study, config.question_in(asked.text), f"flwr run . (study {asked.source})")
        opened = pipeline.opened(store, "ray", data_dir())
        if simulated(grid):
            roll_call(grid, 1, study.runtime.start_timeout)  # once a client answers, Flower's own Ray is up
        ray = RaySession(cpus=study.runtime.cpus or processors(), address=study.runtime.ray_address)
        with ray, Bars(Console(stderr=True, highlight=False), **opened.progress()) as watch:
            opened.simulate_on(lambda serve, *_: serve(grid), watch)


def job(message: Message, context: Context) -> ClientJob:
    """What this client does: looked up in the study that every party has."""
    name = str(message.content.config_records[wire.CONFIG][wire.CELL])
    return _job(request_of(context.run_config), name, os.environ.get(parts.FOLDER))


def request_of(run_config: Mapping[str, object]) -> Request:
    name, overrides = str(run_config["study"]), str(run_config.get("overrides", "")).split()
    text = str(run_config.get("text") or config.find(name).read_text(encoding="utf-8"))
    return Request(text, name, tuple(overrides))


def refuse_feedback(those: Sequence[Cell]) -> None:
    """Clients have nothing here that they could keep from round to round.

    Raises:
        ConfigError: A defense would have them keep something.
    """
    if owing := [cell.name for cell in those if any(defense.feedback for defense in cell.job(None).update_defenses)]:
        raise ConfigError(
            f"expected defenses without error feedback under `flwr run` and `fl-sim deploy run`, where clients have no "
            f"run folder to keep what they owe, got some in {', '.join(owing)}: use `fl-sim run`, or leave feedback out"
        )


@lru_cache(maxsize=4)
def _job(asked: Request, name: str, folder: str | None) -> ClientJob:
    """From a client's own folder, where it has one: it then reads nothing else."""
    cell = next(cell for cell in cells(asked.study()) if cell.folder == name)
    if folder is None:
        return cell.job(data_dir())
    own = shares.own(Path(folder), cell)
    return cell.job_on(own, own.task)


def data_dir() -> str | None:
    return os.environ.get("FL_SIM_DATA")


client_app = flower_client(job)
