"""``fl-sim deploy``: what its commands do."""

import json as json_
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import tomli_w
from rich.markup import escape

from experiments import config, terminal
from experiments.commands.runs import finish, stages
from experiments.commands.shell import FAILED, err, logging_to, out, text_of
from experiments.deploy import health
from experiments.deploy import keys as keys_
from experiments.deploy.compose import Compose
from experiments.deploy.flower import Flower
from experiments.deploy.place import Place
from fl_sim.core.errors import FlSimError


def keys(place: Path, clients: int, hosts: Sequence[str], days: int) -> None:
    keys_.make(Place(place), clients, hosts, days)
    out.print(f"{clients} clients in {place}/clients; the SuperLink in {place}/server", soft_wrap=True)


def up(place: Path, data_dir: Path | None, port: int, wait: float, *, gpu: bool, insecure: bool) -> None:
    """SuperLink, registration, SuperNodes: in this order, for a SuperNode that is not known ends."""
    here, address = Place(place), f"127.0.0.1:{port}"
    compose = Compose(here, data_dir, port, insecure=insecure, gpu=gpu)
    clients = here.clients()
    compose.hand_over()
    compose("up", "-d", "superlink")
    if not health.wait(address, None if insecure else here.ca, wait):
        compose("logs", "--tail", "30", "superlink")
        raise FlSimError(f"the SuperLink did not answer at {address} within {wait:g} s (--wait): its log stands above")
    flower = Flower(here, address, insecure)
    if not insecure:
        flower.register()
    compose("up", "-d")
    ends = time.monotonic() + wait
    while (there := flower.online()) < clients:
        if time.monotonic() > ends:
            compose("logs", "--tail", "30")
            raise FlSimError(
                f"expected {clients} clients, {there} came within {wait:g} s (--wait): their logs stand above"
            )
        time.sleep(1)
    out.print(f"SuperLink at {address}, {there} clients")


def run(
    place: Path,
    study_name: str,
    overrides: Sequence[str],
    name: str | None,
    data_dir: Path | None,
    address: str,
    *,
    insecure: bool,
    fail_if: Sequence[str],
    json: bool,
) -> None:
    """The federation there, then judgement and report here, where the truth is."""
    from experiments import pipeline
    from experiments.gate import limit
    from fl_sim.runtime.store import RunStore

    limits, here, path = [limit(text) for text in fail_if], Place(place), config.find(study_name)
    study = _deal(here, path, overrides, data_dir)
    name = name or study.name
    flower = Flower(here, address, insecure)
    if (there := flower.online()) < (wanted := study.federation.clients):
        err.print(
            f"{there} of {wanted} clients are there: the run waits {study.runtime.start_timeout:g} s for the others"
        )
    _federate(flower, text_of_study(path, overrides), study_name, name)
    folder = here.runs / name
    with RunStore(folder) as store, logging_to(folder / "log.txt"):
        opened = pipeline.opened(store, "inline", text_of(data_dir))
        stages(opened, ("evaluate",))
        finish(opened, limits, json=json)


def share(place: Path, study_name: str, overrides: Sequence[str], data_dir: Path | None) -> None:
    here = Place(place)
    _deal(here, config.find(study_name), overrides, data_dir)
    out.print(f"each client's images are in {place}/clients/N/data", soft_wrap=True)


def register(place: Path, address: str) -> None:
    here = Place(place)
    clients = here.clients()
    Flower(here, address, insecure=False).register()
    out.print(f"{clients} clients may join at {address}")


def status(place: Path, address: str, *, insecure: bool, json: bool) -> None:
    here = Place(place)
    if not health.healthy(address, None if insecure else here.ca):
        raise FlSimError(f"no SuperLink answers at {address}: run `fl-sim deploy up`, or name its --address")
    flower = Flower(here, address, insecure)
    runs = [
        {"run": row["run-id"], "status": row["status"], "why": row["status-details"], "seconds": round(row["elapsed"])}
        for row in flower.ask("list")["runs"]
    ]
    about = {"superlink": address, "clients": here.clients(), "online": flower.online(), "runs": runs}
    if json:
        print(json_.dumps(about, indent=1))
        return
    out.print(f"SuperLink at {address}: {about['online']} of {about['clients']} clients")
    if runs:
        out.print(terminal.listing("runs", runs))


def down(place: Path) -> None:
    Compose(Place(place), None, port=8000, insecure=False, gpu=False)("--profile", "cli", "down")


def _federate(flower: Flower, text: str, source: str, name: str) -> None:
    """A run on the deployment, to its end; where that is not a good one, the end of this process, too."""
    number = flower.submit(text, source, f"runs/{name}")
    try:
        ended = flower.follow(number)
    except KeyboardInterrupt:
        flower.ask("stop", number)
        raise
    if ended["status"] != "finished:completed":
        why = ended["status-details"] or "its log stands above"
        err.print(f"[red]error:[/] the run ended as {ended['status']}: {escape(why)}", soft_wrap=True)
        sys.exit(FAILED)


def _deal(place: Place, path: Path, overrides: Sequence[str], data_dir: Path | None) -> config.Study:
    """The study, once it has been found possible and each client has its images."""
    from experiments.app import refuse_feedback
    from experiments.check import check, load
    from experiments.deploy import shares

    study = load(path, overrides)
    grid = check(study, text_of(data_dir))
    refuse_feedback(grid)
    shares.deal(place, grid, text_of(data_dir))
    return study


def text_of_study(path: Path, overrides: Sequence[str]) -> str:
    """A study with its question and its overrides, for parties that have neither file nor command line."""
    return f"# {config.question(path)}\n{tomli_w.dumps(config.read(path, overrides))}"
