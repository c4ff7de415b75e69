"""Small generators of csinva/gan-vae-pretrained-pytorch (MIT): DCGANs, an MLP, a VAE's decoder."""

from math import isqrt

from torch import Tensor

from attacks.generators.public.keys import Converted, Keys
from fl_sim.core.errors import ConfigError

_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def dcgan(keys: Keys) -> Converted:
    """``main.N.*``: a transposed convolution, batch norm and ReLU in turn, the last convolution alone.

    A last kernel of 1 keeps the side, 32; with one channel it also cuts a border of 2 off, as MNIST's 28 need: padding
    is in no tensor, so this is known of the two public files alone.
    """
    tensors: dict[str, Tensor] = {}
    convs = [keys.take(f"main.{place}.weight", 4) for place in keys.places("main.{}.weight", 3) or [0]]
    for i, conv in enumerate(convs):
        tensors[f"convs.{i}.weight"] = conv
    for i in range(len(convs) - 1):
        norm = {name: keys.take(f"main.{3 * i + 1}.{name}") for name in _NORM}
        norm["num_batches_tracked"] = norm["num_batches_tracked"].long()
        tensors |= {f"norms.{i}.{name}": tensor for name, tensor in norm.items()}
    colours = convs[-1].shape[1]
    side = 4 << sum(conv.shape[2] == 4 for conv in convs) - 1
    if convs[-1].shape[2] == 1 and colours == 1:
        side -= 4
    widths = [conv.shape[1] for conv in convs[:-1]]
    options = {"image_shape": (colours, side, side), "latents": convs[0].shape[0], "channels": widths}
    return Converted("dcgan", options, tensors)


def mlp(keys: Keys) -> Converted:
    """``0.weight``, ``2.weight`` ...: linear layers, ReLU between, tanh at the end; square grey images."""
    weights = [keys.take(f"{place}.weight", 2) for place in keys.places("{}.weight", 2) or [0]]
    tensors: dict[str, Tensor] = {}
    for i, weight in enumerate(weights):
        tensors |= {f"layers.{i}.weight": weight, f"layers.{i}.bias": keys.take(f"{2 * i}.bias")}
    widths = [weight.shape[1] for weight in weights]
    return Converted("mlp", {"image_shape": _grey(len(weights[-1])), "widths": widths, "output": "tanh"}, tensors)


def vae_decoder(keys: Keys) -> Converted:
    """``fc3`` and ``fc4`` of a VAE, with ReLU between and a sigmoid at the end; its encoder is left out."""
    keys.drop(*(f"{layer}.{name}" for layer in ("fc1", "fc21", "fc22") for name in ("weight", "bias")))
    tensors = {
        f"layers.{place}.{name}": keys.take(f"{layer}.{name}")
        for place, layer in enumerate(("fc3", "fc4"))
        for name in ("weight", "bias")
    }
    hidden, latents = tensors["layers.0.weight"].shape
    shape = _grey(len(tensors["layers.1.bias"]))
    return Converted("mlp", {"image_shape": shape, "widths": [latents, hidden], "output": "sigmoid"}, tensors)


def _grey(pixels: int) -> tuple[int, int, int]:
    side = isqrt(pixels)
    if side * side != pixels:
        raise ConfigError(f"expected a square number of pixels, got {pixels}: only square grey images can be read")
    return (1, side, side)
