import pytest
import torch

from fl_sim.core.errors import FlSimError
from fl_sim.core.seeds import derive
from fl_sim.metrics.identification import identification_rank
from fl_sim.metrics.image import mse

TRUTH = torch.rand(4, 3, 8, 8, generator=derive(0, "truth"))
OTHERS = torch.rand(50, 3, 8, 8, generator=derive(0, "others"))
GUESS = (0.2 * TRUTH + 0.8 * torch.rand(4, 3, 8, 8, generator=derive(0, "guess"))).clamp(0, 1)


def test_rank_counts_the_strictly_closer() -> None:
    expected = [
        1 + sum(mse(g[None], other[None]).item() < mse(g[None], t[None]).item() for other in OTHERS)
        for g, t in zip(GUESS, TRUTH, strict=True)
    ]
    assert identification_rank(GUESS, TRUTH, OTHERS).tolist() == expected
    assert max(expected) > 1


def test_the_image_itself_is_identified() -> None:
    assert identification_rank(TRUTH, TRUTH, OTHERS).tolist() == [1, 1, 1, 1]


def test_another_candidate_is_not() -> None:
    assert identification_rank(OTHERS[:4], TRUTH, OTHERS).min() > 1


def test_the_true_image_in_the_line_up_never_counts_against_itself() -> None:
    plain = identification_rank(GUESS, TRUTH, OTHERS)
    for i in range(4):
        among = torch.cat([OTHERS[:20], TRUTH[i : i + 1], OTHERS[20:], TRUTH[i : i + 1]])
        assert identification_rank(GUESS[i : i + 1], TRUTH[i : i + 1], among).item() == plain[i].item()


def test_order_of_candidates_does_not_matter() -> None:
    shuffled = OTHERS[torch.randperm(50, generator=derive(1))]
    assert torch.equal(identification_rank(GUESS, TRUTH, shuffled), identification_rank(GUESS, TRUTH, OTHERS))


def test_a_guess_that_knows_nothing_comes_first_as_often_as_chance() -> None:
    draws = torch.rand(400, 5, 1, 4, 4, generator=derive(2))
    firsts = [identification_rank(draw[:1], draw[1:2], draw[2:]).item() == 1 for draw in draws]
    assert sum(firsts) / 400 == pytest.approx(1 / 4, abs=0.07)


@pytest.mark.parametrize("candidates", [torch.zeros(0, 3, 8, 8), torch.zeros(2, 1, 8, 8)])
def test_an_unfit_line_up_is_refused(candidates: torch.Tensor) -> None:
    with pytest.raises(FlSimError, match="candidates"):
        identification_rank(GUESS, TRUTH, candidates)
