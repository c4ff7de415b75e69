"""``fl-sim train-prior``: a density fitted to public images, as a file that attacks read.

Public means a split that clients do not hold, the test split as a rule: so no image that a study attacks is ever fitted
to. A study takes images of it for its accuracy, which no prior touches, and as strangers in line-ups, which a prior
that has seen them can only make harder.
"""

import json as json_
import math
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

import torch
from rich.console import Console, Group
from rich.text import Text
from torch import Tensor

from attacks.priors.stored import About, Kind
from experiments import terminal
from experiments.commands.shell import err, out
from experiments.fitting import Autoencoder, Fit, fit_mixture, fit_vae, grid
from experiments.progress import bar
from fl_sim.core.errors import ConfigError, FlSimError
from fl_sim.core.seeds import derive
from fl_sim.data import Dataset, Source, load
from fl_sim.data.transforms import to_unit
from fl_sim.runtime import files

_HELD_OUT = 0.1
_LEVELS = 255  # grey levels between 0 and 1
_Named: TypeAlias = Literal["shared", "pixel"]
_VERSIONS = ("fl-sim", "torch", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Order:
    """What is to be trained.

    Args:
        source: The data set, as a study names it.
        split: Which of its images, as :meth:`Dataset.select` takes it.
        images: Most of them to use; ``None``: all. A tenth is held out.
        components: Of a mixture.
        autoencoder: Of a VAE.
        out: The file.
    """

    kind: Kind
    source: Source
    split: str
    images: int | None
    components: int
    autoencoder: Autoencoder
    seed: int
    out: Path


@dataclass(frozen=True, kw_only=True)
class Made:
    """The file that was written, and what was tried."""

    path: Path
    about: About
    tried: list[dict[str, float]]

    def as_dict(self) -> dict[str, Any]:
        whole = {"prior": str(self.path), "bytes": self.path.stat().st_size}
        return {**whole, **asdict(self.about), "tried": self.tried}

    def shown(self) -> Group:
        """A table of what was tried, the figures, and where the file is."""
        about, figures = self.about, self.about.figures
        options = ", ".join(f"{name} {value}" for name, value in about.options.items())
        tried = [{name: f"{value:.6g}" for name, value in row.items()} for row in self.tried]
        text = (
            f"{about.kind} of {about.images} images of {about.data} ({about.split}): {options}\n"
            f"{'ELBO, at most log p' if about.kind == 'vae' else 'log p'}, mean of {about.held_out} held-out images: "
            f"{figures['held_out_nats']:.1f} +- {figures['held_out_nats_error']:.1f} nats an image over normalised "
            f"pixels, {figures['held_out_bits_per_dim']:.3f} bits/dim at 8 bits; of those fitted to: "
            f"{figures['train_nats']:.1f} nats\n{self.path}: {self.path.stat().st_size / 2**20:.1f} MiB"
        )
        return Group(terminal.listing("tried", tried), Text(text))


def command(order: Order, *, json: bool) -> None:
    """``fl-sim train-prior``: train, and print what came of it."""
    made = train(order, err)
    if json:
        print(json_.dumps(made.as_dict(), indent=1))
    else:
        out.print(made.shown())


def parse_std(text: str) -> _Named | float:
    """``--decoder-std``."""
    if text in get_args(_Named):
        return cast(_Named, text)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigError(f"--decoder-std: expected shared, pixel or a number above 0, got {text!r}")
    return value


def train(order: Order, console: Console) -> Made:
    """Fit, write the file, say how good it is.

    Raises:
        ConfigError: Too few images, or a file that cannot be there.
        FlSimError: The fit diverged.
    """
    make_room(order.out)
    data = load(order.source)
    fitted, held = public_vectors(data, order.split, order.images, order.seed)
    fit = _fit(order, fitted, held, console)
    if not fit.held.isfinite().all():
        raise FlSimError(
            "expected a finite density of every held-out image, got others: use another seed or more images"
        )
    about = _about(order, data, fit, len(fitted), len(held))
    files.write_tensors(order.out, fit.tensors, asdict(about))
    return Made(path=order.out, about=about, tried=fit.tried)


def make_room(out: Path) -> None:
    """For a file of tensors; where that fails, it fails before the work."""
    if out.suffix != ".safetensors" or out.is_dir():
        raise ConfigError(f"--out: expected the name of a file that ends in .safetensors, got {out}")
    out.parent.mkdir(parents=True, exist_ok=True)


def _fit(order: Order, fitted: Tensor, held: Tensor, console: Console) -> Fit:
    components = order.components if order.kind == "mixture" else 1
    if len(fitted) < 2 * components or not len(held):
        raise ConfigError(
            f"expected at least {2 * components} images to fit and one to hold out, got {len(fitted)} and {len(held)} "
            f"of {order.source.name} ({order.split}): use more images, or fewer components"
        )
    if order.kind == "vae":
        with bar(console, order.autoencoder.epochs) as tick:
            return fit_vae(fitted, held, order.autoencoder, order.seed, tick)
    with bar(console, 1 + len(grid(components))) as tick:
        return fit_mixture(fitted, held, components, order.seed, tick)


def public_vectors(data: Dataset, split: str, images: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """Normalised images of a split to fit to and to hold out, ``(n, d)`` and ``(m, d)`` float64, chosen by ``seed``.

    Images of 256 levels are spread evenly over their level's width first: else a density could be as high as it likes
    at the levels, and pixels that never change would have no variance. The fits are thus of a continuous density, whose
    bits per dimension bound the code length of the images themselves.
    """
    public = data.select(split)
    order = torch.randperm(len(public.labels), generator=derive(seed, "prior", "images"))[:images]
    stored = public.images[order]
    pixels = to_unit(stored).double()
    if not stored.is_floating_point():
        noise = torch.rand(pixels.shape, generator=derive(seed, "prior", "levels"), dtype=torch.float64)
        pixels = pixels + (noise - 0.5) / _LEVELS
    mean, std = (torch.tensor(moments, dtype=torch.float64).view(-1, 1, 1) for moments in (data.mean, data.std))
    vectors = ((pixels - mean) / std).flatten(1)
    held = round(_HELD_OUT * len(vectors))
    return vectors[held:], vectors[:held]


def bits_per_dim(nats: float, data: Dataset) -> float:
    """Of a mean log density over normalised images: bits a pixel and channel, at 256 levels."""
    channels, height, width = data.image_shape
    per_level = nats - height * width * sum(math.log(_LEVELS * std) for std in data.std)
    return -per_level / (channels * height * width * math.log(2))


def _about(order: Order, data: Dataset, fit: Fit, images: int, held_out: int) -> About:
    return About(
        kind=order.kind,
        data=data.name,
        origin=data.origin,
        split=order.split,
        image_shape=data.image_shape,
        mean=data.mean,
        std=data.std,
        images=images,
        held_out=held_out,
        seed=order.seed,
        options=fit.options,
        figures={
            "train_nats": fit.train.mean().item(),
            "held_out_nats": (nats := fit.held.mean().item()),
            "held_out_nats_error": fit.held.std(correction=0).item() / math.sqrt(held_out),
            "held_out_bits_per_dim": bits_per_dim(nats, data),
        },
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Of the programs that a fit depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _VERSIONS}}
