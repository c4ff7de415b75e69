"""BigGAN-deep as ported to torch from TF Hub (huggingface/pytorch-pretrained-BigGAN), trained on ImageNet."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from attacks.generators.biggan import ATTENTION, SHAPES
from attacks.generators.public.keys import Converted, Keys
from fl_sim.core.types import Tensors

_STATISTICS = -1  # of 51 sets, for truncations 0, 0.02 ... 1: that of 1
_SIDE = 4  # of the first feature
_PROJECTIONS = {"theta": "query", "phi": "key", "g": "value", "o_conv": "out"}


def biggan_deep(keys: Keys, resolution: int) -> Converted:
    """Spectral norms divided out, statistics of truncation 1 kept, features in torch's order of dimensions.

    Of the last convolution's outputs the port uses three; only these are kept.
    """
    shapes = SHAPES[resolution]
    embed = keys.take("embeddings.weight", 2)
    first, bias = _normed(keys, "generator.gen_z"), keys.take("generator.gen_z.bias")
    channels = len(bias) // _SIDE**2
    tensors = {
        "embed.weight": embed,
        "first.weight": first.view(_SIDE, _SIDE, channels, -1).permute(2, 0, 1, 3).flatten(0, 2),
        "first.bias": bias.view(_SIDE, _SIDE, channels).permute(2, 0, 1).flatten(),
    }
    for place in range(len(shapes) + 1):
        source, target = f"generator.layers.{place}", f"layers.{place}"
        tensors |= _attention(keys, source, target) if place == ATTENTION else _block(keys, source, target)
    tensors |= _end(keys)
    latents, classes = embed.shape
    width = channels // shapes[0].before
    options = {"resolution": resolution, "classes": classes, "latents": latents, "width": width}
    return Converted("biggan_deep", options, tensors)


def _block(keys: Keys, source: str, target: str) -> Tensors:
    tensors: dict[str, Tensor] = {}
    for i in range(4):
        norm, conv = f"{source}.bn_{i}", f"{source}.conv_{i}"
        tensors |= {
            f"{target}.norms.{i}.scale.weight": _normed(keys, f"{norm}.scale"),
            f"{target}.norms.{i}.shift.weight": _normed(keys, f"{norm}.offset"),
            f"{target}.norms.{i}.mean": keys.take(f"{norm}.running_means", 2)[_STATISTICS],
            f"{target}.norms.{i}.var": keys.take(f"{norm}.running_vars", 2)[_STATISTICS],
            f"{target}.convs.{i}.weight": _normed(keys, conv),
            f"{target}.convs.{i}.bias": keys.take(f"{conv}.bias"),
        }
    return tensors


def _attention(keys: Keys, source: str, target: str) -> Tensors:
    convs = {f"{target}.{b}.weight": _normed(keys, f"{source}.snconv1x1_{a}") for a, b in _PROJECTIONS.items()}
    return {**convs, f"{target}.weight": keys.take(f"{source}.gamma")}


def _end(keys: Keys) -> Tensors:
    return {
        "norm.weight": keys.take("generator.bn.weight"),
        "norm.bias": keys.take("generator.bn.bias"),
        "norm.running_mean": keys.take("generator.bn.running_means", 2)[_STATISTICS],
        "norm.running_var": keys.take("generator.bn.running_vars", 2)[_STATISTICS],
        "norm.num_batches_tracked": torch.tensor(0),
        "last.weight": _normed(keys, "generator.conv_to_rgb")[:3],
        "last.bias": keys.take("generator.conv_to_rgb.bias")[:3],
    }


def _normed(keys: Keys, name: str) -> Tensor:
    """A weight over the file's spectral norm of it, ``u^T W v``; ``v`` is made as the port makes it where left out."""
    weight, u = keys.take(f"{name}.weight_orig"), keys.take(f"{name}.weight_u", 1)
    matrix = weight.flatten(1)
    v = keys.take(f"{name}.weight_v", 1) if f"{name}.weight_v" in keys else normalize(matrix.T @ u, dim=0)
    return weight / (u @ matrix @ v)
