"""``fl-sim deploy``: a study with its parties apart. As in ``cli``, what is heavy is imported late."""

from pathlib import Path
from typing import Annotated

import typer

from experiments.options import AsJson, DataDir, FailIf, Overrides

deploy = typer.Typer(
    name="deploy", help="A study with its parties in containers or on machines of their own.", no_args_is_help=True
)

Where = Annotated[
    Path, typer.Option("--place", envvar="FL_SIM_PLACE", help="The deployment's folder: keys, clients' data, runs.")
]
Address = Annotated[
    str, typer.Option("--address", envvar="FL_SIM_SUPERLINK", help="HOST:PORT of the SuperLink, as in its certificate.")
]
Insecure = Annotated[
    bool, typer.Option("--insecure", envvar="FL_SIM_INSECURE", help="Neither TLS nor authentication: development only.")
]
Port = Annotated[int, typer.Option(help="Of the SuperLink.")]
_PLACE, _ADDRESS = Path("runs/deploy"), "127.0.0.1:8000"


@deploy.command()
def keys(
    clients: Annotated[int, typer.Option(min=1, help="How many SuperNodes.")] = 3,
    host: Annotated[
        list[str] | None, typer.Option(help="A name or address of the SuperLink's machine, beside localhost.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="For which certificates hold.")] = 365,
    place: Where = _PLACE,
) -> None:
    """Make what is missing: an authority, the SuperLink's certificate, a folder with a key for each client."""
    from experiments.commands import deployment

    deployment.keys(place, clients, host or [], days)


@deploy.command()
def up(
    port: Port = 8000,
    gpu: Annotated[bool, typer.Option("--gpu", help="The SuperLink's attacks get the machine's GPUs.")] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds for the SuperLink, and again for its clients.")] = 300,
    insecure: Insecure = False,
    data_dir: DataDir = None,
    place: Where = _PLACE,
) -> None:
    """Start the containers, let the clients in, wait until all are there."""
    from experiments.commands import deployment

    deployment.up(place, data_dir, port, wait, gpu=gpu, insecure=insecure)


@deploy.command()
def run(
    study: Annotated[str, typer.Argument(help="A TOML file, or the name of a bundled study.")],
    overrides: Overrides = None,
    out: Annotated[
        str | None, typer.Option(help="Name of the run, in PLACE/runs; the study's where not given.")
    ] = None,
    address: Address = _ADDRESS,
    insecure: Insecure = False,
    data_dir: DataDir = None,
    place: Where = _PLACE,
    fail_if: FailIf = None,
    json: AsJson = False,
) -> None:
    """Run a study on the deployment, follow it to its end, judge it here; an interrupted one goes on where it was."""
    from experiments.commands import deployment

    where = (place, study, overrides or [], out, data_dir, address)
    deployment.run(*where, insecure=insecure, fail_if=fail_if or [], json=json)


@deploy.command()
def status(
    address: Address = _ADDRESS, insecure: Insecure = False, place: Where = _PLACE, json: AsJson = False
) -> None:
    """Who is there, and how the runs ended; an error where the SuperLink does not answer."""
    from experiments.commands import deployment

    deployment.status(place, address, insecure=insecure, json=json)


@deploy.command()
def down(place: Where = _PLACE) -> None:
    """Stop the containers; keys, data and runs stay."""
    from experiments.commands import deployment

    deployment.down(place)


@deploy.command()
def share(
    study: Annotated[str, typer.Argument(help="A TOML file, or the name of a bundled study.")],
    overrides: Overrides = None,
    data_dir: DataDir = None,
    place: Where = _PLACE,
) -> None:
    """Only deal out a study's images, each client's into its folder: for clients on other machines."""
    from experiments.commands import deployment

    deployment.share(place, study, overrides or [], data_dir)


@deploy.command()
def register(address: Address = _ADDRESS, place: Where = _PLACE) -> None:
    """Only let in the clients whose keys are here; before their SuperNodes start."""
    from experiments.commands import deployment

    deployment.register(place, address)


@deploy.command()
def superlink(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Port = 8000,
    insecure: Insecure = False,
    data_dir: DataDir = None,
    place: Where = _PLACE,
) -> None:
    """Be the SuperLink, without Docker."""
    from experiments.deploy import parts
    from experiments.deploy.place import Place

    parts.superlink(Place(place), host=host, port=port, data_dir=data_dir, insecure=insecure).execute()


@deploy.command()
def supernode(
    folder: Annotated[Path, typer.Argument(help="A client's folder, PLACE/clients/N: all that its machine needs.")],
    superlink: Annotated[str, typer.Option(help="HOST:PORT of the SuperLink.")] = _ADDRESS,
    port: Annotated[
        int | None, typer.Option(help="On loopback, for Flower's ClientApp; 9094 + N if not given.")
    ] = None,
    insecure: Insecure = False,
) -> None:
    """Be a SuperNode, without Docker."""
    from experiments.deploy import parts

    parts.supernode(folder, superlink=superlink, port=port, insecure=insecure).execute()
