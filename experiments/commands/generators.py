"""``fl-sim convert-generator``: a public generator as a file that attacks read, its stages listed, samples drawn."""

import json as json_
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Group
from rich.text import Text
from torch import Tensor

from attacks.generators import About, Generator
from attacks.generators.public import convert
from attacks.generators.stylegan2 import Codes
from attacks.generators.table import table
from experiments import terminal
from experiments.commands.shell import out
from fl_sim.core.errors import ConfigError
from fl_sim.core.seeds import derive
from fl_sim.runtime import files

_SIDES = 64  # up to this side, 64 samples, above 16: an image of 1024 takes a CPU seconds


@dataclass(frozen=True)
class Order:
    """What is to be converted; see ``fl-sim convert-generator --help``."""

    file: str
    kind: str
    out: Path
    samples: Path | None
    codes: Codes | None
    data: str | None


def command(order: Order, *, json: bool) -> None:
    """``fl-sim convert-generator``: convert, write the file and the picture, and print what it is.

    Raises:
        MissingDataError: The public file is not there.
        ConfigError: It is another kind's or not to be trusted, or a file cannot be written under its name.
    """
    for path, suffix in ((order.out, ".safetensors"), (order.samples, ".png")):
        if path is not None and (path.suffix != suffix or path.is_dir()):
            raise ConfigError(f"expected the name of a file that ends in {suffix}, got {path}")
    generator, about, tensors = convert(order.file, order.kind, order.codes, order.data)
    files.write_tensors(order.out, tensors, asdict(about))
    if order.samples is not None:
        order.samples.parent.mkdir(parents=True, exist_ok=True)
        picture(generator).save(order.samples)
    if json:
        print(json_.dumps(_described(order, generator, about), indent=1))
    else:
        out.print(_shown(order, generator, about))


@torch.no_grad()
def picture(generator: Generator) -> Image.Image:
    """Samples of seed 0 side by side, in order of their classes, which are spread evenly where there are any."""
    columns = 8 if generator.image_shape[1] <= _SIDES else 4
    count = columns**2
    condition = torch.zeros(count, generator.classes)
    if generator.classes:
        condition[torch.arange(count), torch.arange(count) * generator.classes // count] = 1
    state = generator.start(count, condition, derive(0, "samples"))
    rows = [generator({name: whole[i : i + 1] for name, whole in state.items()}) for i in range(count)]
    return Image.fromarray(_pixels(torch.cat(rows), columns).numpy())


def _pixels(images: Tensor, columns: int) -> Tensor:
    """``(N, C, H, W)`` in [0, 1] as one picture of bytes, ``(rows H, columns W)`` or ``(rows H, columns W, 3)``."""
    lines = [torch.cat(list(images[i : i + columns]), 2) for i in range(0, len(images), columns)]
    whole = (torch.cat(lines, 1) * 255).round().byte()
    return whole[0] if len(whole) == 1 else whole.permute(1, 2, 0).contiguous()


def _parameters(generator: Generator) -> int:
    return sum(weight.numel() for weight in generator.parameters())


def _described(order: Order, generator: Generator, about: About) -> dict[str, Any]:
    stages = [{"stage": stage.place, "searched": dict(stage.shapes)} for stage in table(generator)]
    whole = {"generator": str(order.out), "bytes": order.out.stat().st_size, "parameters": _parameters(generator)}
    return {**whole, **asdict(about), "stages": stages}


def _shown(order: Order, generator: Generator, about: About) -> Group:
    rows = [
        {"stage": stage.place, "searched": name, "shape": "x".join(map(str, shape)), "entries": stage.numel[name]}
        for stage in table(generator)
        for name, shape in stage.shapes.items()
    ]
    options = ", ".join(f"{name} {value}" for name, value in about.options.items())
    text = (
        f"{about.architecture} of {about.made['file']} ({about.data}): {options}\n"
        f"{_parameters(generator):,} parameters in {generator.depth} stages\n"
        f"{order.out}: {order.out.stat().st_size / 2**20:.1f} MiB"
    )
    return Group(terminal.listing("searched before each stage", rows), Text(text))
