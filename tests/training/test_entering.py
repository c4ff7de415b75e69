"""What goes into a layer."""

import pytest
import torch
from torch import Tensor, nn

from fl_sim.core.errors import FlSimError
from fl_sim.training.entering import entering, passed_on
from fl_sim.training.local import state_of


class Odd(nn.Module):
    """A layer used twice, one never, and one on several rows an image."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.never, self.rows, self.once = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, images: Tensor) -> Tensor:
        rows = self.rows(images.flatten(1, 2))
        out: Tensor = self.once(self.twice(self.twice(rows.mean(1))))
        return out


def test_it_is_what_the_layer_was_given_differentiable_in_the_images() -> None:
    torch.manual_seed(0)
    net, images = Odd(), torch.rand(3, 1, 2, 4, requires_grad=True)
    found = entering(net, state_of(net), net.once, images)
    expected = net.twice(net.twice(net.rows(images.flatten(1, 2)).mean(1)))
    assert torch.equal(found, expected)
    assert torch.autograd.grad(found.sum(), images)[0].any()
    assert not net.once._forward_pre_hooks


@pytest.mark.parametrize("name", ["twice", "never", "rows"])
def test_a_layer_that_is_not_used_once_on_a_row_an_image_is_refused(name: str) -> None:
    net = Odd()
    with pytest.raises(FlSimError, match=f"expected layer '{name}' to be used once"):
        entering(net, state_of(net), net.get_submodule(name), torch.rand(3, 1, 2, 4))


def test_all_that_it_was_given_can_be_asked_for() -> None:
    net = Odd()
    given, logits = passed_on(net, state_of(net), net.twice, torch.rand(3, 1, 2, 4))
    assert [tuple(one.shape) for one in given] == [(3, 4), (3, 4)]
    assert logits.shape == (3, 4)
