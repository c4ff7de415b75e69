"""The command line. Everything heavy is imported where it is used, so that --help answers at once."""

import os
import sys
import threading
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import typer

INTERRUPTED = 130

app = typer.Typer(
    name="fl-sim",
    help="Federated learning with a server that looks: what does it learn about the clients, and which defense helps?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 all done; 1 finished, but jobs or checks failed; 2 wrong study or command; 130 interrupted.",
)

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Change the study, such as federation.rounds=1.")
]
Folder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Out = Annotated[Path | None, typer.Option(help="The run folder; runs/NAME where not given.")]
DataDir = Annotated[
    Path | None, typer.Option(envvar="FL_SIM_DATA", help="Where data sets and weights are looked for first.")
]
Where = Annotated[
    str, typer.Option("--executor", help="ray: Flower's simulation and attack actors; inline: this process.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over: delete the run folder first.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


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
    fresh: Fresh = False,
    json: AsJson = False,
) -> None:
    """Run a study from simulation to report; an interrupted one goes on where it was."""
    from experiments import commands

    commands.run(study, overrides or [], out, data_dir, executor, fresh=fresh, json=json)


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
) -> None:
    """Only attack: run what is missing on the observations there are."""
    from experiments import commands

    commands.attack(folder, name, data_dir, executor, retry_failed=retry_failed)


@app.command()
def evaluate(folder: Folder, data_dir: DataDir = None) -> None:
    """Only judge: hold new reconstructions against the truth."""
    from experiments import commands

    commands.stage("evaluate", folder, data_dir, "inline")


@app.command()
def report(folder: Folder, data_dir: DataDir = None) -> None:
    """Only write report.html, table.md and summary.json from the records."""
    from experiments import commands

    commands.stage("report", folder, data_dir, "inline")


@app.command("train-prior")
def train_prior(
    kind: Annotated[
        Literal["gaussian", "mixture", "vae", "gan", "decoder", "vaegan"],
        typer.Option(
            help="Densities (vae: fully connected, its bound), or convolutional generators: a GAN, the decoder "
            "of a conditional VAE, or both at once."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The file to write, *.safetensors.")],
    data: Annotated[str, typer.Option(help="A data set.")],
    data_dir: DataDir = None,
    path: Annotated[str | None, typer.Option(help="Your own images, for npz and folder.")] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="As data.image_size of the study.")] = None,
    split: Annotated[
        str,
        typer.Option(
            help='Images that no client holds: test, train (for studies with data.split = "test"), or a '
            "slice, train[:50000]."
        ),
    ] = "test",
    images: Annotated[int | None, typer.Option(min=1, help="Most images to use, a tenth of them to validate.")] = None,
    components: Annotated[int, typer.Option(min=1, help="Of a mixture.")] = 10,
    epochs: Annotated[int, typer.Option(min=1, help="Of a VAE or a generator.")] = 50,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Of a generator's training: no further epoch is begun after.")
    ] = None,
    latents: Annotated[int | None, typer.Option(min=1, help="Of a VAE (20) or a generator (64).")] = None,
    hidden: Annotated[int, typer.Option(min=1, help="Width of a VAE's hidden layers.")] = 500,
    decoder_std: Annotated[str, typer.Option(help="Of a VAE: shared or pixel (both learned), or a number.")] = "shared",
    architecture: Annotated[
        Literal["staged", "dcgan"], typer.Option(help="Of a generator; dcgan knows no classes.")
    ] = "staged",
    width: Annotated[int, typer.Option(min=1, help="Channels of a generator.")] = 64,
    samples: Annotated[
        Path | None, typer.Option(help="Picture of a generator's samples, *.png; beside the file where not given.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Leave a generator's checkpoint: train from the start.")
    ] = False,
    seed: int = 0,
    json: AsJson = False,
) -> None:
    """Fit a prior to public images, in a file that attacks read; an interrupted generator goes on where it was."""
    from experiments import commands
    from fl_sim.data import Source

    source = Source(name=data, path=path, data_dir=str(data_dir) if data_dir else None, image_size=image_size)
    shared: dict[str, Any] = {"epochs": epochs, "latents": latents, "json": json}
    if kind in {"gaussian", "mixture", "vae"}:
        vae = {"hidden": hidden, "decoder_std": decoder_std}
        commands.train_density(kind, source, split, images, seed, out, components=components, **vae, **shared)
    else:
        network = {"architecture": architecture, "width": width}
        where = {"samples": samples, "fresh": fresh, "minutes": minutes}
        commands.train_generator(kind, source, split, images, seed, out, **network, **where, **shared)


@app.command()
def tune(
    study: Annotated[str, typer.Argument(help="A TOML file, or the name of a bundled study.")],
    overrides: Overrides = None,
    seed: Annotated[int, typer.Option(help="Of the tuning run: other images, weights and draws.")] = 77,
    clients: Annotated[int, typer.Option(min=1, help="Clients attacked in each attacked round.")] = 8,
    sweeps: Annotated[int, typer.Option(min=1, help="Times that all arguments are gone through, one by one.")] = 1,
    oracle: Annotated[
        bool, typer.Option("--oracle", help="Tune on the reported images themselves, as papers do: an upper bound.")
    ] = False,
    out: Out = None,
    data_dir: DataDir = None,
    executor: Where = "ray",
) -> None:
    """Find the attacks' settings on images that the study does not report."""
    from experiments import commands

    plan = {"seed": seed, "clients": clients, "sweeps": sweeps, "oracle": oracle}
    commands.tune(study, overrides or [], out, data_dir, executor, **plan)


@app.command("list")
def list_(
    what: Annotated[
        str, typer.Argument(metavar="attacks|defenses|datasets|models|priors|studies", help="What to list.")
    ],
    json: AsJson = False,
) -> None:
    """What there is by name, with parameters."""
    from experiments import commands

    commands.list_(what, json=json)


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
