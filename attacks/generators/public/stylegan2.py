"""StyleGAN2 in rosinality's and in NVlabs' (ADA) torch layout: one architecture under two sets of names."""

from itertools import count, takewhile

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from attacks.generators.public.keys import Converted, Keys
from attacks.generators.stylegan2 import Codes, StyleGAN2, kernel
from fl_sim.core.errors import ConfigError
from fl_sim.core.seeds import derive
from fl_sim.core.types import Tensors

_FITTED = 20_000  # latents that the Gaussian of styles is fitted to


def rosinality(keys: Keys) -> Converted:
    """``g_ema`` of rosinality/stylegan2-pytorch, as its FFHQ config-f file has it; unconditional.

    Fixed noise maps and filters are nothing that we keep, and some files leave them out.
    """
    blocks = 1 + len(keys.places("to_rgbs.{}.bias"))
    layers = list(takewhile(lambda i: f"style.{i + 1}.weight" in keys, count()))  # style.0 normalises, and has none
    tensors = {"const": keys.take("input.input", 4)[0]}
    for i in layers:
        tensors |= _linear(keys, f"style.{i + 1}", f"mapping.{i}")
    for block in range(blocks):
        names = [f"convs.{2 * block - 2}", f"convs.{2 * block - 1}"] if block else ["conv1"]
        for i, name in enumerate(names):
            tensors |= _named(keys, name, f"blocks.{block}.convs.{i}")
        tensors |= _named(keys, f"to_rgbs.{block - 1}" if block else "to_rgb1", f"blocks.{block}.paint")
        if block:
            _check_filter(keys, f"{names[0]}.conv.blur.kernel", 4)
            _check_filter(keys, f"to_rgbs.{block - 1}.upsample.kernel", 4)
    keys.drop(*(name for i in range(2 * blocks - 1) if (name := f"noises.noise_{i}") in keys))
    return Converted("stylegan2", _options(tensors, blocks, len(layers), classes=0), tensors)


def _named(keys: Keys, source: str, target: str) -> Tensors:
    """A convolution of rosinality's, painting or not."""
    paints = f"{source}.noise.weight" not in keys
    tensors = {
        f"{target}.weight": keys.take(f"{source}.conv.weight", 5)[0],
        f"{target}.bias": keys.take(f"{source}.bias" if paints else f"{source}.activate.bias").flatten(),
        **_linear(keys, f"{source}.conv.modulation", f"{target}.affine"),
    }
    return tensors if paints else {**tensors, f"{target}.noise": keys.take(f"{source}.noise.weight").squeeze()}


def ada(keys: Keys) -> Converted:
    """``G_ema`` of NVlabs/stylegan2-ada-pytorch, of architecture ``skip``, with classes or without."""
    layers = keys.places("mapping.fc{}.weight")
    tensors = {"const": keys.take("synthesis.b4.const", 3)}
    for i in layers:
        tensors |= _linear(keys, f"mapping.fc{i}", f"mapping.{i}")
    conditional = "mapping.embed.weight" in keys
    if conditional:
        tensors |= _linear(keys, "mapping.embed", "embed")
    keys.drop("mapping.w_avg")
    blocks = list(takewhile(lambda block: f"synthesis.b{4 << block}.conv1.weight" in keys, count()))
    for block in blocks:
        source = f"synthesis.b{4 << block}"
        for i, name in enumerate(("conv0", "conv1") if block else ("conv1",)):
            tensors |= _convolution(keys, f"{source}.{name}", f"blocks.{block}.convs.{i}")
        tensors |= _painting(keys, f"{source}.torgb", f"blocks.{block}.paint")
        _check_filter(keys, f"{source}.resample_filter", 1)
    classes = tensors["embed.weight"].shape[1] if conditional else 0
    return Converted("stylegan2", _options(tensors, len(blocks), len(layers), classes), tensors)


def _convolution(keys: Keys, source: str, target: str) -> Tensors:
    keys.drop(f"{source}.noise_const")
    _check_filter(keys, f"{source}.resample_filter", 1)
    return {**_painting(keys, source, target), f"{target}.noise": keys.take(f"{source}.noise_strength", 0)}


def _painting(keys: Keys, source: str, target: str) -> Tensors:
    return {**_linear(keys, source, target), **_linear(keys, f"{source}.affine", f"{target}.affine")}


def _linear(keys: Keys, source: str, target: str) -> Tensors:
    return {f"{target}.{name}": keys.take(f"{source}.{name}") for name in ("weight", "bias")}


def _check_filter(keys: Keys, name: str, gain: float) -> None:
    if name not in keys:
        return
    found = keys.take(name)
    if found.shape != (4, 4) or not torch.allclose(found, gain * kernel(found), atol=1e-5):
        raise ConfigError(f"{name}: expected the filter [1, 3, 3, 1], got {found.tolist()}: this network is another")


def _options(tensors: Tensors, blocks: int, mapping: int, classes: int) -> dict[str, object]:
    styles, given = tensors["blocks.0.paint.affine.weight"].shape[1], tensors["mapping.0.weight"].shape[1]
    side = 4 << blocks - 1
    return {
        "image_shape": (len(tensors["blocks.0.paint.bias"]), side, side),
        "channels": [len(tensors[f"blocks.{block}.convs.0.bias"]) for block in range(blocks)],
        "classes": classes,
        "latents": given - (styles if classes else 0),
        "styles": styles,
        "mapping": mapping,
    }


def with_codes(made: Converted, network: StyleGAN2, codes: Codes) -> Converted:
    """The same network, whose searches start from other styles (see :class:`StyleGAN2`).

    The Gaussian is fitted here, to styles of 20,000 latents, so that no file of moments is needed.

    Raises:
        ConfigError: A Gaussian of styles, but styles depend on a class.
    """
    options = {**made.options, "codes": codes}
    if codes != "gaussian":
        return made._replace(options=options)
    if network.classes:
        raise ConfigError("--codes gaussian: expected a network without classes, got one with: use one or each")
    mean, std = _fit(network)
    return made._replace(options=options, tensors={**made.tensors, "fit_mean": mean, "fit_std": std})


@torch.no_grad()
def _fit(network: StyleGAN2) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each entry of a style, its activation undone."""
    latents = torch.randn(_FITTED, network.latents, generator=derive(0, "styles"))
    styles = network.styled(latents, torch.zeros(_FITTED, 0))
    before = leaky_relu(styles, 1 / 0.2)
    return before.mean(0), before.std(0)
