import pytest
import torch

from fl_sim.core.errors import FlSimError
from fl_sim.metrics.labels import label_accuracy


@pytest.mark.parametrize(
    ("guess", "truth", "share"),
    [
        ([3, 3, 1], [3, 1, 1], 2 / 3),
        ([1, 2, 3], [3, 1, 2], 1),
        ([0, 0, 0, 0], [0, 1, 2, 3], 1 / 4),
        ([5], [4], 0),
    ],
)
def test_labels_are_compared_as_multisets(guess: list[int], truth: list[int], share: float) -> None:
    assert label_accuracy(torch.tensor(guess), torch.tensor(truth)) == pytest.approx(share)


@pytest.mark.parametrize(("guess", "truth"), [([1], [1, 2]), ([], [])])
def test_what_cannot_be_compared_is_refused(guess: list[int], truth: list[int]) -> None:
    with pytest.raises(FlSimError, match="label vectors"):
        label_accuracy(torch.tensor(guess), torch.tensor(truth))
