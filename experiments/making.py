"""Commands that make what studies use: priors, generators, policies, settings. What is heavy is imported late."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from experiments.options import AsJson, DataDir, Out, Overrides, Where

making = typer.Typer()


@making.command("train-prior")
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


@making.command("convert-generator")
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


@making.command("search-policy")
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


@making.command()
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
