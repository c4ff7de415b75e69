"""Public checkpoints to files of ours, once; see ``fl-sim convert-generator``. To add one: a line in ``PUBLIC``."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from attacks.generators.base import Generator
from attacks.generators.public.biggan import biggan_deep
from attacks.generators.public.keys import Converted, Keys
from attacks.generators.public.small import dcgan, mlp, vae_decoder
from attacks.generators.public.stylegan2 import ada, rosinality, with_codes
from attacks.generators.public.unpickle import network
from attacks.generators.stored import About, built
from attacks.generators.stylegan2 import Codes, StyleGAN2
from attacks.stored import Version
from fl_sim.core.errors import ConfigError
from fl_sim.core.types import Tensors

__all__ = ["PUBLIC", "Public", "convert"]


def _plain(path: Path) -> Mapping[Any, Any]:
    """A file of tensors alone; torch refuses to run anything for it."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises almost anything
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"expected a file of plain tensors, got {path}, of which nothing was run: {reason}"
        ) from error
    if not isinstance(found, Mapping):
        raise ConfigError(f"expected a dictionary of tensors, got {type(found).__name__} in {path}")
    return found


def _averaged(path: Path) -> Mapping[Any, Any]:
    found = _plain(path).get("g_ema")
    if not isinstance(found, Mapping):
        raise ConfigError(f"expected a dictionary with `g_ema`, got another in {path}: choose another kind")
    return found


@dataclass(frozen=True)
class Public:
    """A public checkpoint.

    Args:
        convert: From its tensors.
        file: Its name.
        source: Where it is, and under which terms.
        data: What it was trained on, where all such files were trained on the same.
        read: Its tensors, nothing of it run.
    """

    convert: Callable[[Keys], Converted]
    file: str
    source: str
    data: str = "unknown"
    read: Callable[[Path], Mapping[Any, Any]] = _plain


def _biggan(resolution: int) -> Public:
    file = f"biggan-deep-{resolution}-pytorch_model.bin"
    source = f"https://s3.amazonaws.com/models.huggingface.co/biggan/{file}"
    return Public(partial(biggan_deep, resolution=resolution), file, source, "imagenet")


_SMALL = "https://github.com/csinva/gan-vae-pretrained-pytorch (MIT)"

PUBLIC: Mapping[str, Public] = MappingProxyType(
    {
        **{f"biggan_deep_{resolution}": _biggan(resolution) for resolution in (128, 256, 512)},
        "stylegan2": Public(
            rosinality,
            "stylegan2-ffhq-config-f.pt",
            "https://github.com/rosinality/stylegan2-pytorch (FFHQ: NVIDIA, non-commercial)",
            read=_averaged,
        ),
        "stylegan2_ada": Public(
            ada,
            "cifar10.pkl, ffhq.pkl or another",
            "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/ (NVIDIA, non-commercial)",
            read=partial(network, name="G_ema"),
        ),
        "dcgan": Public(dcgan, "netG_epoch_199.pth (CIFAR-10) or netG_epoch_99.pth (MNIST)", _SMALL),
        "mlp": Public(mlp, "G--300.ckpt", _SMALL, "mnist"),
        "vae_decoder": Public(vae_decoder, "vae_epoch_25.pth", _SMALL, "mnist"),
    }
)
"""By the name that ``fl-sim convert-generator --kind`` takes."""


def convert(
    path: str, kind: str, codes: Codes | None = None, data: str | None = None
) -> tuple[Generator, About, Tensors]:
    """The generator of a public file, what its file of ours says of it, and the tensors of that file.

    Args:
        codes: Of a StyleGAN2; ``one`` where not given.
        data: What it was trained on, where that is not known of the kind.

    Raises:
        MissingDataError: There is no file; says its public name and place.
        ConfigError: It is another kind's, or not to be trusted.
    """
    if kind not in PUBLIC:
        raise ConfigError(f"--kind: expected one of {', '.join(PUBLIC)}, got {kind!r}")
    public = PUBLIC[kind]
    place = Version.of(path, f"download {public.file} from {public.source} and give its path").path
    keys = Keys(public.read(place), f"{place} as {kind}")
    made = public.convert(keys)
    keys.end()
    generator = _checked(made, f"{place} as {kind}")
    if codes is not None:
        if not isinstance(generator, StyleGAN2):
            raise ConfigError(f"--codes: expected a StyleGAN2, got the kind {kind}: leave it out")
        made = with_codes(made, generator, codes)
        generator = _checked(made, f"{place} as {kind}")
    return generator, _about(made, kind, place, data or public.data), made.tensors


def _about(made: Converted, kind: str, place: Path, data: str) -> About:
    return About(
        architecture=made.architecture,
        options=made.options,
        data=data,
        origin=PUBLIC[kind].source,
        figures={},
        made={
            "file": place.name,
            "kind": kind,
            "sha256": hashlib.sha256(place.read_bytes()).hexdigest(),
            "versions": {name: version(name) for name in ("fl-sim", "torch")},
        },
    )


def _checked(made: Converted, what: str) -> Generator:
    return built(made.architecture, made.options, made.tensors, what)
