from itertools import permutations

import pytest
import torch

from fl_sim.core.errors import FlSimError
from fl_sim.core.seeds import derive
from fl_sim.metrics.image import mse
from fl_sim.metrics.matching import match, squared_distances


@pytest.mark.parametrize("seed", range(5))
def test_no_other_permutation_has_less_error(seed: int) -> None:
    guess, truth = torch.rand(2, 5, 1, 4, 4, generator=derive(seed))
    least = min(mse(guess[list(p)], truth).sum().item() for p in permutations(range(5)))
    assert mse(guess[match(guess, truth)], truth).sum().item() == pytest.approx(least)


def test_a_shuffled_batch_is_put_back() -> None:
    truth = torch.rand(6, 3, 8, 8, generator=derive(1))
    shuffled = truth[torch.randperm(6, generator=derive(2))]
    assert torch.equal(shuffled[match(shuffled, truth)], truth)


def test_one_good_image_does_not_serve_twice() -> None:
    truth = torch.tensor([0.0, 0.1]).reshape(2, 1, 1, 1)
    guess = torch.tensor([0.05, 1.0]).reshape(2, 1, 1, 1)
    assert sorted(match(guess, truth).tolist()) == [0, 1]


def test_the_optimum_is_not_the_greedy_choice() -> None:
    truth = torch.tensor([0.5, 0.9]).reshape(2, 1, 1, 1)
    guess = torch.tensor([0.6, 0.2]).reshape(2, 1, 1, 1)  # 0.6 is closest to 0.5, but then 0.2 has to be 0.9
    assert match(guess, truth).tolist() == [1, 0]


def test_distances_are_every_pairs_mse() -> None:
    left, right = torch.rand(3, 1, 4, 4, generator=derive(3)), torch.rand(2, 1, 4, 4, generator=derive(4))
    expected = [[mse(a[None], b[None]).item() for b in right] for a in left]
    assert squared_distances(left, right).tolist() == [pytest.approx(row) for row in expected]


def test_unequal_batches_are_refused() -> None:
    with pytest.raises(FlSimError, match="one shape"):
        match(torch.zeros(2, 1, 4, 4), torch.zeros(3, 1, 4, 4))
