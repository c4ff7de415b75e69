"""One small StyleGAN2 in both public layouts, and its image by the definition, written on rosinality's names."""

import itertools

import torch
from torch import Tensor
from torch.nn.functional import conv2d, leaky_relu, pad

from fl_sim.core.seeds import derive
from tests.attacks.generators.test_stylegan2 import FILTER, each_filtered, spread

STYLES, LATENTS, WIDTHS, LAYERS = 5, 5, (4, 6, 3), 2
Saved = dict[str, Tensor]


def rosinality() -> Saved:
    """``g_ema`` with random weights, for images of 16."""
    rng = derive(0, "stylegan2")
    saved: Saved = {}

    def drawn(name: str, *shape: int, scale: float = 1.0) -> None:
        saved[name] = scale * torch.randn(shape, generator=rng)

    def conv(name: str, before: int, after: int, kernel: int) -> None:
        drawn(f"{name}.conv.weight", 1, after, before, kernel, kernel)
        drawn(f"{name}.conv.modulation.weight", before, STYLES)
        drawn(f"{name}.conv.modulation.bias", before)
        if kernel == 1:
            drawn(f"{name}.bias", 1, 3, 1, 1, scale=0.1)
        else:
            drawn(f"{name}.noise.weight", 1)
            drawn(f"{name}.activate.bias", after)

    for i in range(LAYERS):
        drawn(f"style.{i + 1}.weight", STYLES, LATENTS, scale=100)
        drawn(f"style.{i + 1}.bias", STYLES, scale=100)
    drawn("input.input", 1, WIDTHS[0], 4, 4)
    conv("conv1", WIDTHS[0], WIDTHS[0], 3)
    conv("to_rgb1", WIDTHS[0], 3, 1)
    for i, (before, after) in enumerate(itertools.pairwise(WIDTHS)):
        conv(f"convs.{2 * i}", before, after, 3)
        conv(f"convs.{2 * i + 1}", after, after, 3)
        conv(f"to_rgbs.{i}", after, 3, 1)
        saved[f"convs.{2 * i}.conv.blur.kernel"] = saved[f"to_rgbs.{i}.upsample.kernel"] = 4 * FILTER.float()
    for i in range(2 * len(WIDTHS) - 1):
        side = 4 << (i + 1) // 2
        drawn(f"noises.noise_{i}", 1, 1, side, side)
    return saved


def ada(saved: Saved, classes: int = 0) -> Saved:
    """The same network in NVlabs' names; with classes, the embedding and what reads it are drawn anew."""
    rng = derive(0, "ada")
    renamed = {"synthesis.b4.const": saved["input.input"][0], "mapping.w_avg": torch.zeros(STYLES)}
    for i in range(LAYERS):
        renamed |= {f"mapping.fc{i}.{name}": saved[f"style.{i + 1}.{name}"] for name in ("weight", "bias")}
    if classes:
        renamed["mapping.embed.weight"] = torch.randn(STYLES, classes, generator=rng)
        renamed["mapping.embed.bias"] = torch.randn(STYLES, generator=rng)
        renamed["mapping.fc0.weight"] = 100 * torch.randn(STYLES, LATENTS + STYLES, generator=rng)
    places = [("b4.conv1", "conv1"), ("b4.torgb", "to_rgb1")]
    for i in range(len(WIDTHS) - 1):
        block = f"b{8 << i}"
        places += [(f"{block}.conv{j}", f"convs.{2 * i + j}") for j in range(2)] + [(f"{block}.torgb", f"to_rgbs.{i}")]
    for target, source in places:
        name, painting = f"synthesis.{target}", target.endswith("torgb")
        renamed |= {
            f"{name}.weight": saved[f"{source}.conv.weight"][0],
            f"{name}.bias": saved[f"{source}.bias" if painting else f"{source}.activate.bias"].flatten(),
            f"{name}.affine.weight": saved[f"{source}.conv.modulation.weight"],
            f"{name}.affine.bias": saved[f"{source}.conv.modulation.bias"],
            f"synthesis.{target.split('.')[0]}.resample_filter": FILTER.float(),
        }
        if not painting:
            renamed |= {
                f"{name}.noise_strength": saved[f"{source}.noise.weight"][0],
                f"{name}.noise_const": torch.zeros(2, 2),
                f"{name}.resample_filter": FILTER.float(),
            }
    return renamed


def reference(saved: Saved, styles: Tensor, noise: list[Tensor]) -> Tensor:
    """One image as painted, ``(1, 3, 16, 16)``, of styles ``(6, 5)`` and maps ``(1, 1, n, n)``."""
    saved = {name: value.double() for name, value in saved.items()}
    places = iter(range(2 * len(WIDTHS)))

    def weight(name: str, style: Tensor, norm: bool) -> Tensor:
        scale = saved[f"{name}.conv.modulation.weight"] @ style / STYLES**0.5 + saved[f"{name}.conv.modulation.bias"]
        made: Tensor = saved[f"{name}.conv.weight"][0]
        made = made * scale[None, :, None, None] / made[0].numel() ** 0.5
        return made / (made.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt() if norm else made

    def conv(name: str, x: Tensor, doubles: bool) -> Tensor:
        place = next(places)
        made = weight(name, styles[place], norm=True)
        if doubles:
            x = each_filtered(pad(conv2d(pad(spread(x), [2] * 4), made.flip(2, 3)), [1] * 4))
        else:
            x = conv2d(x, made, padding=1)
        x = x + saved[f"{name}.noise.weight"] * noise[place] + saved[f"{name}.activate.bias"].view(1, -1, 1, 1)
        return leaky_relu(x, 0.2) * 2**0.5

    def paint(name: str, x: Tensor, style: Tensor) -> Tensor:
        return conv2d(x, weight(name, style, norm=False)) + saved[f"{name}.bias"]

    x = conv("conv1", saved["input.input"], doubles=False)
    painted = paint("to_rgb1", x, styles[1])
    for i in range(len(WIDTHS) - 1):
        x = conv(f"convs.{2 * i}", x, doubles=True)
        x = conv(f"convs.{2 * i + 1}", x, doubles=False)
        painted = each_filtered(pad(spread(painted), (2, 2, 2, 2))) + paint(f"to_rgbs.{i}", x, styles[2 * i + 3])
    return painted
