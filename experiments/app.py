"""Flower's entry points: ``flwr run .`` trains and attacks the study that the run's config names.

The config's keys are in pyproject.toml: ``study``, ``overrides``, ``out``. Judging and the report need the truth, which
the server does not have: ``fl-sim evaluate OUT`` and ``fl-sim report OUT`` afterwards, where the data is.
"""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp

from experiments import config, pipeline
from experiments.build import Cell, cells
from experiments.check import check
from experiments.config import Study
from experiments.simulate import CellJobs
from experiments.watch import Silent
from fl_sim.core.errors import ConfigError
from fl_sim.federation.client import ClientJob
from fl_sim.federation.client import client_app as flower_client
from fl_sim.federation.server import roll_call
from fl_sim.runtime.pool import RaySession
from fl_sim.runtime.store import RunStore

server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """The grid is here already, so the engine is just a call."""
    name, study = study_of(context)
    place = Path(str(context.run_config.get("out") or pipeline.default_folder(study)))
    with RunStore(place) as store:
        pipeline.create(store, study, config.question(config.find(name)), f"flwr run . (study {name})")
        opened = pipeline.opened(store, "ray", data_dir())
        roll_call(grid, 1)  # once a client answers, Flower's own Ray is up, if this is its simulation
        with RaySession(cpus=study.runtime.cpus, address=study.runtime.ray_address):
            opened.simulate_on(lambda serve, *_: serve(grid), Silent())


def job(message: Message, context: Context) -> ClientJob:
    """What this client does: looked up in the study that every party has."""
    name = str(context.run_config["study"])
    return _jobs(name, str(context.run_config.get("overrides", "")))(message, context)


def study_of(context: Context) -> tuple[str, Study]:
    """The study and its name.

    Raises:
        ConfigError: Its clients would have to remember something.
    """
    name = str(context.run_config["study"])
    study = config.load(config.find(name), str(context.run_config.get("overrides", "")).split())
    _forgetful(cells(study))
    return name, study


def _forgetful(those: Sequence[Cell]) -> None:
    if owing := [cell.name for cell in those if any(defense.feedback for defense in cell.job(None).update_defenses)]:
        raise ConfigError(
            f"expected defenses without error feedback under `flwr run`, where clients have no run folder to keep what "
            f"they owe, got some in {', '.join(owing)}: use `fl-sim run`, or leave feedback out"
        )


@lru_cache(maxsize=4)
def _jobs(name: str, overrides: str) -> CellJobs:
    those = check(config.load(config.find(name), overrides.split()))
    return CellJobs({cell.folder: cell.job(data_dir()) for cell in those})


def data_dir() -> str | None:
    return os.environ.get("FL_SIM_DATA")


client_app = flower_client(job)
