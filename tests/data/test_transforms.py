import numpy as np
import torch
from PIL import Image

from fl_sim.core.seeds import derive
from fl_sim.data.transforms import to_square, to_unit


def test_unit_range_is_exact() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal((to_unit(levels) * 255).round().to(torch.uint8), levels)
    assert to_unit(levels).dtype == torch.float32
    assert to_unit(levels)[[0, -1]].tolist() == [0, 1]


def test_resizing_agrees_with_pillow() -> None:
    image = torch.randint(256, (3, 40, 40), dtype=torch.uint8, generator=derive(0, "image"))
    for size in (13, 64):
        ours = to_square(image[None], size)[0]
        picture = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((size, size), Image.Resampling.BILINEAR)
        theirs = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        assert (ours.int() - theirs.int()).abs().max() <= 1


def test_a_long_image_is_cropped_around_its_centre() -> None:
    image = torch.zeros(1, 1, 8, 24, dtype=torch.uint8)
    image[..., 8:16] = 200
    assert torch.equal(to_square(image, 8), torch.full((1, 1, 8, 8), 200, dtype=torch.uint8))


def test_the_right_size_is_left_alone() -> None:
    image = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    assert to_square(image, 8) is image
