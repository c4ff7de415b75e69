"""The command line. Everything heavy is imported where it is used, so that --help answers at once."""

import os
import sys
import threading
from pathlib import Path
from typing import Annotated

import click
import typer

from experiments.deploying import deploy
from experiments.making import making
from experiments.options import (
    AsJson,
    DataDir,
    FailIf,
    Folder,
    Folders,
    Fresh,
    Out,
    Overrides,
    Page,
    RayAddress,
    Where,
)

INTERRUPTED = 130

app = typer.Typer(
    name="fl-sim",
    help="Federated learning with a server that looks: what does it learn about the clients, and which defense helps?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 all done; 1 finished, but jobs or checks failed; 2 wrong study or command; "
    "3 a limit of --fail-if is broken; 130 interrupted.",
)
app.add_typer(making)
app.add_typer(deploy)


@app.command()
def demo(
    overrides: Overrides = None, out: Out = None, executor: Where = "ray", fresh: Fresh = False, json: AsJson = False
) -> None:
    """Run the bundled demo: digits, 4 clients, 3 rounds, three defenses, two attacks, a report."""
    from experiments import commands

    commands.run("demo", overrides or [], out, None, executor, fresh=fresh, json=json)


@app.command()
def run(
    study: Annotated[str, typer.Argument(help="A TOML file, or the name of a bundled study.")],
    overrides: Overrides = None,
    out: Out = None,
    data_dir: DataDir = None,
    executor: Where = "ray",
    fail_if: FailIf = None,
    ray_address: RayAddress = None,
    fresh: Fresh = False,
    json: AsJson = False,
) -> None:
    """Run a study from simulation to report; an interrupted one goes on where it was."""
    from experiments import commands

    changes = [*(overrides or []), *([f"runtime.ray_address={ray_address}"] if ray_address else [])]
    commands.run(study, changes, out, data_dir, executor, fresh=fresh, json=json, fail_if=fail_if or [])


@app.command()
def check(
    study: Annotated[str, typer.Argument(help="A TOML file, or the name of a bundled study.")],
    overrides: Overrides = None,
    points: Annotated[
        int, typer.Option(min=0, help="Public batches at which the PSNR is predicted; 0: no prediction.")
    ] = 3,
    data_dir: DataDir = None,
    json: AsJson = False,
) -> None:
    """Run nothing: is the study possible, and what privacy and what noise does it promise?"""
    from experiments import commands

    commands.check(study, overrides or [], points, data_dir, json=json)


@app.command()
def simulate(folder: Folder, data_dir: DataDir = None, executor: Where = "ray") -> None:
    """Only train: finish the federation of a run."""
    from experiments import commands

    commands.stage("simulate", folder, data_dir, executor)


@app.command()
def attack(
    folder: Folder,
    name: Annotated[
        str | None, typer.Option("--attack", help="Add this attack; arguments as name:key=value,key=value.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed jobs again.")] = False,
    data_dir: DataDir = None,
    executor: Where = "ray",
    ray_address: RayAddress = None,
) -> None:
    """Only attack: run what is missing on the observations there are."""
    from experiments import commands

    commands.attack(folder, name, data_dir, executor, ray_address, retry_failed=retry_failed)


@app.command()
def evaluate(folder: Folder, data_dir: DataDir = None) -> None:
    """Only judge: hold new reconstructions against the truth."""
    from experiments import commands

    commands.stage("evaluate", folder, data_dir, "inline")


@app.command()
def report(folders: Folders, page: Page = None, data_dir: DataDir = None, fail_if: FailIf = None) -> None:
    """Only write report.html, table.md and summary.json from the records; of several runs, one page that compares."""
    from experiments import commands

    commands.report(folders, data_dir, fail_if or [], page)


@app.command()
def export(
    folder: Folder,
    place: Annotated[
        Path, typer.Argument(metavar="FILE|DIR", help="What to write: .parquet or .csv, one row an image; or a folder.")
    ],
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Scalars and pictures by round, for TensorBoard, into a new folder.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """The records as a table, for notebooks and spreadsheets; or as TensorBoard's events."""
    from experiments import commands

    commands.export(folder, place, data_dir, tensorboard=tensorboard)


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(metavar="AUDIT", help="An AUDIT.toml, or a folder that Intercept wrote.")],
    out: Out = None,
    fresh: Fresh = False,
    json: AsJson = False,
) -> None:
    """Make a run folder of recorded updates, to be attacked, and say what seems wrong with the record."""
    from experiments import commands

    commands.import_(source, out, fresh=fresh, json=json)


@app.command("list")
def list_(
    what: Annotated[
        str, typer.Argument(metavar="attacks|defenses|datasets|models|priors|predictors|studies", help="What to list.")
    ],
    json: AsJson = False,
) -> None:
    """What there is by name, with parameters."""
    from experiments import commands

    commands.list_(what, json=json)


@app.command()
def doctor(data_dir: DataDir = None, json: AsJson = False) -> None:
    """Is this installation whole? Versions, GPU, Ray, Docker, data, weights, network use, each with what to do."""
    from experiments import commands

    commands.doctor(data_dir, json=json)


@app.command()
def selftest(
    processes: Annotated[int, typer.Option(min=1, help="Checks run at once.")] = os.cpu_count() or 1,
    json: AsJson = False,
) -> None:
    """Known-answer checks of this installation: figure, expected, tolerance, verdict."""
    from experiments import commands

    commands.selftest(processes, json=json)


def main() -> None:
    """Entry point: wrong usage and our own errors become a message and an exit code, an interrupt 130."""
    sys.path.insert(0, str(Path.cwd()))  # for a model of one's own, by its dotted path
    code = outcome()
    if code == INTERRUPTED:
        print("interrupted; the same command goes on from here", file=sys.stderr)
    leave(code)


def outcome() -> int:
    """Run the command; its exit code."""
    try:
        return int(app(standalone_mode=False) or 0)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except Exception as error:
        from experiments import commands

        return commands.explain(error)


def leave(code: int) -> None:
    """End the process, also where Flower's server thread still waits for clients that are gone.

    Nothing is lost by not waiting: whatever was finished is on the disk. After an interrupt Python's own way out may
    end in the signal instead of the code, where it struck inside an ``exec`` (an import, say).
    """
    waits = any(not t.daemon and t is not threading.main_thread() for t in threading.enumerate())
    if code != INTERRUPTED and not waits:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
