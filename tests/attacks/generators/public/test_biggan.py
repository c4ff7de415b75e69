"""BigGAN-deep in the public layout: random weights, converted, against a forward written on the public names."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d, interpolate, max_pool2d

from attacks.generators.public import convert
from fl_sim.core.errors import ConfigError
from fl_sim.core.seeds import derive

LATENTS, CLASSES, WIDTH = 3, 5, 4
LARGER = [(0, 16, 16), (1, 16, 16), (0, 16, 16), (1, 16, 8), (0, 8, 8), (1, 8, 8), (0, 8, 8), (1, 8, 4), (0, 4, 4)]
LARGER += [(1, 4, 2), (0, 2, 2), (1, 2, 1)]  # at 256
BLOCKS = [(0, 16, 16), (1, 16, 16), (0, 16, 16), (1, 16, 8), (0, 8, 8), (1, 8, 4), (0, 4, 4), (1, 4, 2), (0, 2, 2)]
BLOCKS.append((1, 2, 1))
Saved = dict[str, Tensor]


class Writer:
    """A state dict in the port's names; every spectral norm is there, and 51 sets of statistics."""

    def __init__(self) -> None:
        self.saved: Saved = {}
        self.rng = derive(0, "biggan")

    def drawn(self, name: str, *shape: int) -> None:
        self.saved[name] = torch.randn(shape, generator=self.rng)

    def normed(self, name: str, *shape: int, bias: bool = True) -> None:
        self.drawn(f"{name}.weight_orig", *shape)
        u, _, v = torch.linalg.svd(self.saved[f"{name}.weight_orig"].flatten(1), full_matrices=False)
        self.saved |= {f"{name}.weight_u": u[:, 0], f"{name}.weight_v": v[0]}
        if bias:
            self.drawn(f"{name}.bias", shape[0])

    def statistics(self, name: str, channels: int) -> None:
        self.drawn(f"{name}.running_means", 51, channels)
        self.saved[f"{name}.running_vars"] = torch.rand(51, channels, generator=self.rng) + 0.5

    def block(self, name: str, before: int, after: int) -> None:
        middle = before // 4
        for i, (a, b) in enumerate([(before, middle), (middle, middle), (middle, middle), (middle, after)]):
            self.statistics(f"{name}.bn_{i}", a)
            for linear in ("scale", "offset"):
                self.normed(f"{name}.bn_{i}.{linear}", a, 2 * LATENTS, bias=False)
            kernel = 3 if i in (1, 2) else 1
            self.normed(f"{name}.conv_{i}", b, a, kernel, kernel)


def public(blocks: list[tuple[int, int, int]]) -> Saved:
    writer = Writer()
    writer.drawn("embeddings.weight", LATENTS, CLASSES)
    writer.normed("generator.gen_z", 16 * 16 * WIDTH, 2 * LATENTS)
    names = [f"generator.layers.{i}" for i in range(1 + len(blocks))]
    channels = blocks[8][1] * WIDTH
    for name, (_, before, after) in zip(names[:8] + names[9:], blocks, strict=True):
        writer.block(name, before * WIDTH, after * WIDTH)
    for conv, a, b in (("theta", 8, 1), ("phi", 8, 1), ("g", 8, 4), ("o_conv", 4, 8)):
        writer.normed(f"{names[8]}.snconv1x1_{conv}", b * channels // 8, a * channels // 8, 1, 1, bias=False)
    writer.drawn(f"{names[8]}.gamma", 1)
    writer.statistics("generator.bn", WIDTH)
    writer.drawn("generator.bn.weight", WIDTH)
    writer.drawn("generator.bn.bias", WIDTH)
    writer.normed("generator.conv_to_rgb", WIDTH, WIDTH, 3, 3)
    return writer.saved


def reference(saved: Saved, latent: Tensor, label: int) -> Tensor:
    """One image in [-1, 1], ``(1, 3, 128, 128)``; the spectral norm is the largest singular value."""

    def weight(name: str) -> Tensor:
        found: Tensor = saved[f"{name}.weight_orig"] / torch.linalg.matrix_norm(
            saved[f"{name}.weight_orig"].flatten(1), 2
        )
        return found

    def conv(name: str, x: Tensor, padding: int = 0) -> Tensor:
        return conv2d(x, weight(name), saved.get(f"{name}.bias"), padding=padding)

    def norm(name: str, x: Tensor) -> Tensor:
        x = batch_norm(x, saved[f"{name}.running_means"][50], saved[f"{name}.running_vars"][50], eps=1e-4)
        return (
            x * (1 + weight(f"{name}.scale") @ given)[:, None, None] + (weight(f"{name}.offset") @ given)[:, None, None]
        )

    def attended(name: str, x: Tensor) -> Tensor:
        query, key, value = (conv(f"{name}.snconv1x1_{which}", x) for which in ("theta", "phi", "g"))
        key, value = max_pool2d(key, 2)[0].flatten(1), max_pool2d(value, 2)[0].flatten(1)
        heeded = (query[0].flatten(1).T @ key).softmax(1)  # a row a place that asks
        seen = (heeded @ value.T).T.view(1, -1, *x.shape[2:])
        return x + saved[f"{name}.gamma"] * conv(f"{name}.snconv1x1_o_conv", seen)

    given = torch.cat([latent, saved["embeddings.weight"][:, label]])
    x = (weight("generator.gen_z") @ given + saved["generator.gen_z.bias"]).view(1, 4, 4, -1).permute(0, 3, 1, 2)
    layer = 0
    for doubles, _, after in BLOCKS:
        if layer == 8:
            x = attended("generator.layers.8", x)
            layer += 1
        name, beside = f"generator.layers.{layer}", x[:, : after * WIDTH]
        x = conv(f"{name}.conv_0", norm(f"{name}.bn_0", x).relu())
        x = norm(f"{name}.bn_1", x).relu()
        if doubles:
            x, beside = interpolate(x, scale_factor=2), interpolate(beside, scale_factor=2)
        x = conv(f"{name}.conv_1", x, 1)
        x = conv(f"{name}.conv_2", norm(f"{name}.bn_2", x).relu(), 1)
        x = conv(f"{name}.conv_3", norm(f"{name}.bn_3", x).relu()) + beside
        layer += 1
    last = "generator.bn"
    moments = saved[f"{last}.running_means"][50], saved[f"{last}.running_vars"][50]
    x = batch_norm(x, *moments, saved[f"{last}.weight"], saved[f"{last}.bias"], eps=1e-4)
    return conv("generator.conv_to_rgb", x.relu(), 1)[:, :3].tanh()


def test_a_converted_file_makes_the_images_of_the_public_one(tmp_path: Path) -> None:
    saved = public(BLOCKS)
    torch.save(saved, path := tmp_path / "biggan-deep-128-pytorch_model.bin")
    generator, about, _ = convert(str(path), "biggan_deep_128")
    assert dict(about.options) == {"resolution": 128, "classes": CLASSES, "latents": LATENTS, "width": WIDTH}
    labels = [1, 4]
    state = generator.start(2, torch.eye(CLASSES)[labels], derive(0))
    expected = [reference(saved, latent, label) for latent, label in zip(state["latent"], labels, strict=True)]
    images = generator(state)
    assert images.std() > 0.05
    assert torch.allclose(images, (torch.cat(expected) + 1) / 2, atol=1e-4)


def test_the_larger_one_is_read_as_the_larger_one(tmp_path: Path) -> None:
    torch.save(public(LARGER), path := tmp_path / "biggan-deep-256-pytorch_model.bin")
    generator, about, _ = convert(str(path), "biggan_deep_256")
    assert about.options["width"] == WIDTH
    assert (generator.depth, generator.image_shape) == (13, (3, 256, 256))
    with pytest.raises(ConfigError, match="choose another kind"):
        convert(str(path), "biggan_deep_128")


def test_other_tensors_than_expected_are_refused(tmp_path: Path) -> None:
    saved, path = public(BLOCKS), tmp_path / "x.bin"
    torch.save({**saved, "generator.more": torch.zeros(1)}, path)
    with pytest.raises(ConfigError, match=r"expected no other tensors, got 1 more \(generator.more\)"):
        convert(str(path), "biggan_deep_128")
    torch.save({k: v for k, v in saved.items() if k != "generator.layers.8.gamma"}, path)
    with pytest.raises(ConfigError, match=r"expected a tensor 'generator.layers.8.gamma'"):
        convert(str(path), "biggan_deep_128")
    torch.save({**saved, "generator.layers.2.conv_1.bias": torch.zeros(7)}, path)
    with pytest.raises(ConfigError, match="does not fit the architecture biggan_deep"):
        convert(str(path), "biggan_deep_128")
