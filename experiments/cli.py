"""The command line. Everything heavy is imported where it is used, so that --help answers at once."""

import os
import sys
import threading
from pathlib import Path
from typing import Annotated, Literal

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
    kind: Annotated[Literal["gaussian", "mixture", "vae"], typer.Option(help="Gaussians have full covariances.")],
    out: Annotated[Path, typer.Option(help="The file to write, *.safetensors.")],
    data: Annotated[str, typer.Option(help="A data set; its test split is fitted to, which no client holds.")],
    data_dir: DataDir = None,
    path: Annotated[str | None, typer.Option(help="Your own images, for npz and folder.")] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="As data.image_size of the study.")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Most images to use, a tenth of them to validate.")] = None,
    components: Annotated[int, typer.Option(min=1, help="Of a mixture.")] = 10,
    epochs: Annotated[int, typer.Option(min=1, help="Of a VAE.")] = 50,
    latents: Annotated[int, typer.Option(min=1, help="Of a VAE.")] = 20,
    hidden: Annotated[int, typer.Option(min=1, help="Width of a VAE's hidden layers.")] = 500,
    decoder_std: Annotated[str, typer.Option(help="Of a VAE: shared or pixel (both learned), or a number.")] = "shared",
    seed: int = 0,
    json: AsJson = False,
) -> None:
    """Fit a prior to public images: a Gaussian, a mixture or a VAE in a file that attacks read."""
    from experiments.fitting import Autoencoder
    from experiments.priors import Order, command, parse_std
    from fl_sim.data import Source

    source = Source(name=data, path=path, data_dir=str(data_dir) if data_dir else None, image_size=image_size)
    vae = Autoencoder(latents=latents, hidden=hidden, decoder_std=parse_std(decoder_std), epochs=epochs)
    command(Order(kind, source, images, components, vae, seed, out), json=json)


@app.command("convert-generator")
def convert_generator(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The public file, where you put it; nothing of it is run.")
    ],
    kind: Annotated[
        str,
        typer.Option(
            help="biggan_deep_128|256|512, stylegan2 (rosinality), stylegan2_ada (NVlabs), dcgan, mlp or vae_decoder."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The file to write, *.safetensors.")],
    samples: Annotated[Path | None, typer.Option(help="Also write a picture of samples, *.png.")] = None,
    codes: Annotated[
        Literal["one", "each", "gaussian"] | None,
        typer.Option(help="Styles that searches of a StyleGAN2 start from: as GIAS; one a layer; as GIFD."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="What it was trained on, where its kind does not say.")] = None,
    json: AsJson = False,
) -> None:
    """Turn a public generator into a file that attacks read, once: BigGAN-deep, StyleGAN2, DCGAN and small ones."""
    from experiments.commands.generators import Order, command

    command(Order(str(file), kind, out, samples, codes, data), json=json)


@app.command("search-policy")
def search_policy(
    out: Annotated[Path, typer.Option(help="The file to write, *.json: every policy with its scores.")],
    data: Annotated[str, typer.Option(help="A data set; policies are scored on its test split.")],
    data_dir: DataDir = None,
    path: Annotated[str | None, typer.Option(help="Your own images, for npz and folder.")] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="As data.image_size of the study.")] = None,
    model: Annotated[str, typer.Option(help="Of the study.")] = "cnn",
    candidates: Annotated[int, typer.Option(min=1, help="Random policies to score.")] = 100,
    longest: Annotated[int, typer.Option(min=1, help="Most operations in a policy.")] = 3,
    images: Annotated[int, typer.Option(min=2, help="For the privacy score; 4 times as many for the other.")] = 10,
    train: Annotated[int, typer.Option(min=1, help="Images that the privacy score's network is trained on.")] = 400,
    epochs: Annotated[int, typer.Option(min=1, help="For which it is trained.")] = 5,
    slack: Annotated[float, typer.Option(min=0, help="How far the accuracy score may be below that of none.")] = 0.1,
    seed: int = 0,
    json: AsJson = False,
) -> None:
    """Search for ATS policies that hide most by the paper's own scores, without any attack."""
    from experiments.policies import Order, command
    from fl_sim.data import Source

    source = Source(name=data, path=path, data_dir=str(data_dir) if data_dir else None, image_size=image_size)
    command(Order(source, model, candidates, longest, images, train, epochs, slack, seed, out), json=json)


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
