"""``fl-sim train-prior --kind gan|decoder|vaegan``: from public images to a file, by way of a checkpoint an epoch."""

import io
import json as json_
import shlex
import time
from dataclasses import asdict, dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.text import Text
from torch.nn.functional import pad

from attacks.generators import About, Generator, together
from experiments.commands.shell import err, out
from experiments.generators.networks import one_hot
from experiments.generators.quality import CLASSIFIER_WIDTH, STEPS, figures, trained_classifier
from experiments.generators.training import Recipe, Training
from experiments.priors import make_room, versions
from experiments.progress import Tick, bar
from fl_sim.core.errors import ConfigError, FlSimError
from fl_sim.core.seeds import derive
from fl_sim.data import Dataset, Source, Split, load
from fl_sim.runtime import files
from fl_sim.training.local import single_threaded

_HELD_OUT, _MOST_HELD_OUT = 0.1, 1000
_COLUMNS, _ROWS, _LEAST_SIDE = 10, 10, 500  # samples a row, rows, pixels of the picture


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be trained.

    Args:
        source: The data set, as a study names it.
        split: Which of its images, as :meth:`Dataset.select` takes it.
        images: Most of them to use; ``None``: all. A tenth, at most 1,000, is held out.
        epochs: After how many training ends.
        minutes: Of training, after which no further epoch is begun; ``None``: no limit.
        out: The file; the checkpoint and the picture of samples are beside it.
        samples: The picture, where it is to be elsewhere.
        fresh: Begin anew, whatever checkpoint there is.
    """

    recipe: Recipe
    source: Source
    split: str
    images: int | None
    epochs: int
    minutes: float | None
    out: Path
    samples: Path | None = None
    fresh: bool = False

    @property
    def checkpoint(self) -> Path:
        return self.out.with_suffix(".checkpoint.safetensors")

    @property
    def picture(self) -> Path:
        return self.samples or self.out.with_suffix(".png")

    def command(self, epochs: int) -> str:
        """What makes the same file after ``epochs``."""
        source, recipe = self.source, self.recipe
        images = {"data": source.name, "path": source.path, "image-size": source.image_size, "split": self.split}
        given = {**images, "images": self.images, **asdict(recipe), "epochs": epochs, "out": self.out.name}
        options = [(f"--{name}", str(value)) for name, value in given.items() if value is not None]
        return shlex.join(["fl-sim", "train-prior", *chain.from_iterable(options)])


@dataclass(frozen=True, kw_only=True)
class Made:
    """The files that were written."""

    path: Path
    picture: Path
    about: About

    def as_dict(self) -> dict[str, Any]:
        whole = {"generator": str(self.path), "samples": str(self.picture), "bytes": self.path.stat().st_size}
        return {**whole, **{field.name: getattr(self.about, field.name) for field in fields(self.about)}}

    def shown(self) -> Text:
        """What was trained, the figures, and where the files are."""
        about, made, got = self.about, self.about.made, self.about.figures
        lines = [
            f"{about.architecture} ({made['kind']}) of {made['images']} images of {about.data} ({made['split']}), "
            f"{made['epochs']} epochs, {made['seconds'] / 60:.1f} min",
            f"reach: {got['reach_psnr']:.1f} +- {got['reach_psnr_error']:.1f} dB, mean PSNR of held-out images to "
            "which a latent was fitted",
            f"drawn images of the class asked for: {got.get('class_agreement', 0):.1%}, by a classifier right about "
            f"{got['classifier_accuracy']:.1%} of held-out images",
            f"Fréchet distance to held-out images, in that classifier's features: {got['frechet']:.1f}; "
            f"of other real images: {got['frechet_real']:.1f}",
            f"{self.path}: {self.path.stat().st_size / 2**20:.2f} MiB; samples: {self.picture}",
        ]
        return Text("\n".join(line for line in lines if "class_agreement" in got or not line.startswith("drawn")))


class Public(NamedTuple):
    """Images to train on and images to hold out."""

    train: Split
    held: Split

    @classmethod
    def of(cls, data: Dataset, order: Order) -> "Public":
        """Chosen by the seed; the order of either means nothing."""
        public = data.select(order.split)
        chosen = torch.randperm(len(public.labels), generator=derive(order.recipe.seed, "generator", "images"))
        chosen = chosen[: order.images]
        held = min(round(_HELD_OUT * len(chosen)), _MOST_HELD_OUT)
        if held < 2:
            raise ConfigError(f"expected 20 images or more of {data.name} ({order.split}), got {len(chosen)}: use more")
        train, rest = (Split(public.images[c], public.labels[c]) for c in (chosen[held:], chosen[:held]))
        return cls(train, rest)


def command(order: Order, *, json: bool) -> None:
    """Train, and print what came of it."""
    made = make(order, err)
    if json:
        print(json_.dumps(made.as_dict(), indent=1))
    else:
        out.print(made.shown())


def make(order: Order, console: Console) -> Made:
    """Train from the last checkpoint on, write the generator and a picture, say how good it is.

    Raises:
        ConfigError: Images that the architecture cannot make, too few, a checkpoint of something else.
        FlSimError: Training diverged.
    """
    make_room(order.out)
    data = load(order.source)
    public = Public.of(data, order)
    training = Training(order.recipe, order.recipe.options(data.image_shape, data.classes), data.classes)
    run = Run(order, data, public, training)
    with single_threaded():
        with bar(console, run.parts()) as tick:
            run.train(tick)
            generator = training.averaged.eval()
            classifier = trained_classifier(public.train, data.classes, order.recipe.seed)
            found = figures(generator, classifier, public.train, public.held, order.recipe.seed, tick)
        about = run.about(found)
        files.write_tensors(order.out, together(generator, classifier), vars(about))
        files.write(order.picture, picture(generator, data.classes, order.recipe.seed))
    return Made(path=order.out, picture=order.picture, about=about)


class Run:
    """An order being carried out, from where it was left."""

    def __init__(self, order: Order, data: Dataset, public: Public, training: Training) -> None:
        self.order, self.data, self.public, self.training, self.seconds = order, data, public, training, 0.0
        if order.checkpoint.exists() and not order.fresh:
            self._resume()

    def parts(self) -> int:
        """Ticks to come."""
        left = max(0, self.order.epochs - self.training.epochs)
        return left * self.training.batches(self.public.train) + STEPS + 1

    def train(self, tick: Tick) -> None:
        """Until there were enough epochs, or minutes."""
        limit = float("inf") if self.order.minutes is None else 60 * self.order.minutes
        while self.training.epochs < self.order.epochs and (self.seconds < limit or not self.training.epochs):
            begun, number = time.monotonic(), self.training.epochs + 1
            batches = self.training.batches(self.public.train)
            for batch, losses in enumerate(self.training.epoch(self.public.train), 1):
                tick(f"epoch {number} of {self.order.epochs}, batch {batch} of {batches}: {losses}")
            if not all(t.isfinite().all() for t in self.training.averaged.state_dict().values()):
                raise FlSimError(f"expected finite weights, got others in epoch {number}: use another seed or width")
            self.seconds += time.monotonic() - begun
            progress = {"epochs": number, "steps": self.training.steps, "seconds": self.seconds}
            files.write_tensors(self.order.checkpoint, self.training.tensors(), {"of": self._of(), **progress})

    def _resume(self) -> None:
        tensors, about = files.read_tensors(path := self.order.checkpoint)
        mine, other = self._of(), about.get("of", {})
        if differing := [
            f"{name} {mine[name]}, not {other.get(name)}" for name in mine if mine[name] != other.get(name)
        ]:
            raise ConfigError(
                f"expected a checkpoint of {'; '.join(differing)} in {path}: use --fresh, or another --out"
            )
        self.training.restore(tensors, epochs=about["epochs"], steps=about["steps"])
        self.seconds = about["seconds"]

    def _of(self) -> dict[str, Any]:
        """What a checkpoint must be of, to go on from it."""
        held_out, images = len(self.public.held.labels), len(self.public.train.labels)
        origin = {"data": self.data.name, "origin": self.data.origin, "split": self.order.split}
        shape = {"image_shape": list(self.data.image_shape)}
        return {**asdict(self.order.recipe), **origin, **shape, "images": images, "held_out": held_out}

    def about(self, found: dict[str, float]) -> About:
        trained = {"epochs": self.training.epochs, "seconds": round(self.seconds, 1)}
        kept = {k: v for k, v in self._of().items() if k not in {"architecture", "data", "origin", "image_shape"}}
        return About(
            architecture=self.order.recipe.architecture,
            options=self.order.recipe.options(self.data.image_shape, self.data.classes),
            data=self.data.name,
            origin=self.data.origin,
            figures=found,
            classifier={"width": CLASSIFIER_WIDTH} if self.training.generator.classes else None,
            made={**kept, **trained, "command": self.order.command(self.training.epochs), "versions": versions()},
        )


def picture(generator: Generator, classes: int, seed: int) -> bytes:
    """A PNG of samples: a row for each of the first classes, where there are any, enlarged to whole multiples."""
    from PIL import Image

    rows = torch.arange(_ROWS) % max(classes, 1) if generator.classes else torch.zeros(_ROWS, dtype=torch.long)
    condition = one_hot(rows.repeat_interleave(_COLUMNS), max(classes, 1))
    with torch.no_grad():
        images = generator(generator.start(len(condition), condition, derive(seed, "generator", "samples")))
    tiles = pad(images, (0, 1, 0, 1), value=0.5)  # a grey line between
    channels, height, width = tiles.shape[1:]
    grid = tiles.view(_ROWS, _COLUMNS, channels, height, width).permute(0, 3, 1, 4, 2)
    pixels = (grid.reshape(_ROWS * height, _COLUMNS * width, channels) * 255).round().to(torch.uint8).numpy()
    scale = -(-_LEAST_SIDE // (_COLUMNS * width))
    whole = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
    buffer = io.BytesIO()
    whole.resize((whole.width * scale, whole.height * scale), Image.Resampling.NEAREST).save(buffer, format="PNG")
    return buffer.getvalue()
