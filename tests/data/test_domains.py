"""What other domains of MNIST have in common with it."""

from pathlib import Path

import pytest
import torch

from fl_sim.data import Source, load


def test_pixels_are_those_of_mnist_and_nothing_else_is(real_data: Path) -> None:
    plain, inverted, rotated, renamed = (
        load(Source(name=name, data_dir=str(real_data)))
        for name in ("mnist", "mnist_inverted", "mnist_rotated", "mnist_renamed")
    )
    assert torch.equal(inverted.test.images, 255 - plain.test.images)
    assert torch.equal(rotated.test.images[:, :, 0, :], plain.test.images[:, :, :, -1]), "its top was the right edge"
    assert torch.equal(renamed.test.images, plain.test.images)
    assert inverted.mean == pytest.approx([1 - plain.mean[0]], abs=1e-3)
    for changed in (inverted, rotated):
        assert torch.equal(changed.test.labels, plain.test.labels)
    digits = torch.tensor([int(renamed.class_names[label]) for label in renamed.test.labels[:500]])
    assert torch.equal(digits, plain.test.labels[:500])
    assert not torch.equal(renamed.test.labels[:500], digits)
