"""ATS's operations against Pillow, which the released code calls, and specs/bayes.md K11."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from defenses.ats import ENTRIES, Ats, Drawn, Step, transformed
from defenses.operations import OPERATIONS
from fl_sim import models
from fl_sim.core.errors import FlSimError
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat
from fl_sim.core.types import Batch
from fl_sim.metrics.image import psnr
from fl_sim.training.local import gradient, state_of
from tests.conftest import TASK

Picture = Image.Image


def images(*shape: int) -> Tensor:
    """Bytes as they come from a file: a slope with noise."""
    slope = torch.linspace(0.1, 0.8, shape[-1]) + 0.2 * torch.rand(shape, generator=derive(0, "images"))
    return (slope * 255).round() / 255


def batch(*shape: int) -> Batch:
    return Batch(images(*shape), torch.arange(shape[0]))


def picture_of(image: Tensor) -> Picture:
    levels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(levels[..., 0] if len(image) == 1 else levels)


def levels_of(picture: Picture) -> Tensor:
    return torch.from_numpy(np.array(picture, dtype=np.float32)).reshape(*picture.size[::-1], -1).permute(2, 0, 1)


def moved(picture: Picture, *matrix: float, cubic: bool = False) -> Picture:
    how = Image.Resampling.BICUBIC if cubic else Image.Resampling.NEAREST
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, how, fillcolor=0)


def turned(picture: Picture, degrees: float) -> Picture:
    rotated = picture.convert("RGBA").rotate(degrees)
    return Image.composite(rotated, Image.new("RGBA", rotated.size, (128,) * 4), rotated).convert(picture.mode)


PILLOW: Mapping[str, Callable[[Picture, float], Picture]] = {
    "autocontrast": lambda p, _: ImageOps.autocontrast(p),
    "brightness": lambda p, m: ImageEnhance.Brightness(p).enhance(1 + m),
    "color": lambda p, m: ImageEnhance.Color(p).enhance(1 + m),
    "contrast": lambda p, m: ImageEnhance.Contrast(p).enhance(1 + m),
    "equalize": lambda p, _: ImageOps.equalize(p),
    "invert": lambda p, _: ImageOps.invert(p),
    "posterize": lambda p, m: ImageOps.posterize(p, round(m)),
    "rotate": turned,
    "sharpness": lambda p, m: ImageEnhance.Sharpness(p).enhance(1 + m),
    "shearY": lambda p, m: moved(p, 1, 0, 0, m, 1, 0, cubic=True),
    "solarize": ImageOps.solarize,  # type: ignore[dict-item]
    "translateX": lambda p, m: moved(p, 1, 0, m * p.size[0], 0, 1, 0),
    "translateY": lambda p, m: moved(p, 1, 0, 0, 0, 1, m * p.size[1]),
}


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 24, 40)], ids=["cifar", "mnist", "oblong"])
@pytest.mark.parametrize("sign", [1, -1])
def test_every_entry_is_pillows(shape: tuple[int, ...], sign: Any) -> None:
    (image,) = images(1, *shape)
    for entry, (name, level) in enumerate(ENTRIES):
        operation = OPERATIONS[name]
        magnitude = operation.magnitude(level) * (sign if operation.signed else 1)
        expected = levels_of(PILLOW[name](picture_of(image), magnitude))
        found = transformed(image, Drawn(steps=(Step(entry, sign),)))
        assert found.min() >= 0
        assert found.max() <= 1
        assert (found * 255 - expected).abs().max() < 1.5, (entry, name, level)


def test_the_table_has_fifty_entries_and_those_of_the_papers_policies() -> None:
    strengths = {i: (ENTRIES[i][0], OPERATIONS[ENTRIES[i][0]].magnitude(ENTRIES[i][1])) for i in range(50)}
    assert len(ENTRIES) == 50
    assert [strengths[i][0] for i in (3, 7, 4, 13, 15, 21)] == [
        *("translateX", "translateY", "sharpness", "brightness", "brightness", "translateX")
    ]
    assert [strengths[i][1] * 32 for i in (3, 7, 21)] == pytest.approx([14.5, 3.2, 8.06], abs=0.03)
    assert [strengths[i][1] for i in (4, 13, 15)] == pytest.approx([0.056, 0.278, 0.5], abs=0.001)


@pytest.mark.parametrize(("entry", "pixels"), [(3, 15), (21, 8)])
@pytest.mark.parametrize("sign", [1, -1])
def test_shifts_are_by_whole_pixels_and_bring_in_black(entry: int, pixels: int, sign: Any) -> None:
    (image,) = images(1, 3, 32, 32)
    found = transformed(image, Drawn(steps=(Step(entry, sign),)))
    kept, source = (slice(0, 32 - pixels), slice(pixels, 32))[::sign]
    assert torch.equal(found[:, :, kept], image[:, :, source])
    assert int((found == 0).all(0).all(0).sum()) == pixels


@pytest.mark.parametrize("side", [32, 64])
def test_21_13_3_blackens_45_or_70_percent_of_the_columns_and_what_whole_pixels_add(side: int) -> None:
    many = batch(40, 1, side, side)
    out = Ats(policy="21-13-3").transform(many, derive(0)).images
    shares = (out == 0).all(2).all(1).double().mean(1)
    assert sorted({round(s * 100) for s in shares.tolist()}) == ([47, 72] if side == 32 else [45, 70])
    assert 10 < int((shares > 0.6).sum()) < 30


def test_brightness_and_sharpness_go_both_ways() -> None:
    dim, flat_grey = torch.full((3, 8, 8), 0.3), torch.full((3, 8, 8), 0.5)
    bright = [transformed(dim, Drawn(steps=(Step(15, sign),))).mean().item() for sign in (1, -1)]
    assert bright == pytest.approx([0.45, 0.15])
    assert torch.allclose(transformed(flat_grey, Drawn(steps=(Step(14, 1),))), flat_grey)


@pytest.mark.parametrize("shape", [(3, 3, 16, 16), (3, 1, 28, 28)])
def test_no_policy_is_the_identity(shape: tuple[int, ...]) -> None:
    before = batch(*shape)
    after = Ats(policy="").transform(before, derive(0))
    assert torch.equal(after.images, before.images)


@pytest.mark.parametrize("policy", ["21-13-3+7-4-15", "-".join(map(str, range(50)))])
@pytest.mark.parametrize("shape", [(4, 3, 16, 16), (4, 1, 9, 9), (2, 1, 1, 1)])
def test_keeps_labels_shape_and_range(policy: str, shape: tuple[int, ...]) -> None:
    before = batch(*shape)
    copy = before.images.clone()
    after = Ats(policy=policy, crop_and_flip=True).transform(before, derive(0))
    assert torch.equal(after.labels, before.labels)
    assert (after.images.shape, after.images.dtype) == (before.images.shape, before.images.dtype)
    assert after.images.min() >= 0
    assert after.images.max() <= 1
    assert torch.equal(before.images, copy)


def test_same_seed_same_images_whatever_they_show() -> None:
    defense, many = Ats(crop_and_flip=True), batch(6, 1, 16, 16)
    assert torch.equal(*(defense.transform(many, derive(3)).images for _ in range(2)))
    assert defense.draw(many, derive(3)) == defense.draw(Batch(1 - many.images, many.labels), derive(3))
    assert defense.draw(many, derive(3)) != defense.draw(many, derive(4))
    assert defense.draw(many, derive(3))[:2] == defense.draw(batch(2, 1, 16, 16), derive(3))


def test_alternatives_signs_crops_and_flips_are_drawn_evenly_for_each_image() -> None:
    drawn = Ats(crop_and_flip=True).draw(batch(2000, 1, 16, 16), derive(0))
    chains = Counter(tuple(step.entry for step in d.steps) for d in drawn)
    assert set(chains) == {(21, 13, 3), (7, 4, 15)}
    for count in (chains[21, 13, 3], sum(d.flipped for d in drawn), sum(d.steps[0].sign == 1 for d in drawn)):
        assert abs(count - 1000) < 100  # 4.5 standard deviations
    assert {shift for d in drawn for shift in d.shift} == {-2, -1, 0, 1, 2}  # 16 / 8


def test_crop_pads_with_black_then_flips() -> None:
    (image,) = images(1, 1, 8, 8)
    found = transformed(image, Drawn(shift=(-1, 1), flipped=True))
    assert torch.equal(found[:, :-1, :-1], image[:, 1:, :-1].flip(2))
    assert not found[:, -1].any()
    assert not found[:, :, -1].any()


@pytest.mark.parametrize("policy", ["50", "3-", "-3", "3 7", "3++7", "+", "3-7+60", "x", "21,13"])
def test_refuses_what_is_no_policy(policy: str) -> None:
    with pytest.raises(ValueError, match="expected entries"):
        Ats(policy=policy)


def test_refuses_images_that_are_neither_grey_nor_coloured() -> None:
    with pytest.raises(FlSimError, match="4 channels"):
        Ats().transform(batch(1, 4, 8, 8), derive(0))


def test_k11_the_gradient_fits_the_transformed_image_and_not_the_true_one() -> None:
    model, truth, defense = (
        models.build("mlp", TASK, 0, widths=[16]),
        batch(1, *TASK.image_shape),
        Ats(policy="21-13-3"),
    )
    sent = defense.transform(truth, derive(0))
    (drawn,) = defense.draw(truth, derive(0))
    hidden = Batch(transformed(truth.images[0], drawn)[None], truth.labels)
    target, fits, differs = (flat(gradient(model, state_of(model), b).tree) for b in (sent, hidden, truth))
    assert torch.cosine_similarity(target, fits, dim=0).item() == pytest.approx(1)
    assert torch.cosine_similarity(target, differs, dim=0) < 0.9
    assert psnr(sent.images, hidden.images).item() == pytest.approx(150)
    assert psnr(sent.images, truth.images).item() < 15
