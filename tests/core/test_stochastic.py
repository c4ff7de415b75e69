import pytest
import torch
from scipy import stats
from torch import nn

from fl_sim import models
from fl_sim.core.seeds import derive
from fl_sim.core.stochastic import StandardNormal, draw_noise
from tests.conftest import TASK


def test_without_a_draw_it_is_at_its_mean_and_no_state_is_kept() -> None:
    module = StandardNormal(5)
    assert torch.equal(module(), torch.zeros(1, 5))
    assert module.state_dict() == {}


def test_each_stochastic_module_draws_for_each_example() -> None:
    nested = nn.ModuleDict({"inner": StandardNormal(3)})
    net = nn.ModuleDict({"first": StandardNormal(4), "second": nested, "third": nn.Linear(2, 2)})
    drawn = draw_noise(net, 2000, derive(0))
    assert {name: tuple(z.shape) for name, z in drawn.items()} == {
        "first.draw": (2000, 4),
        "second.inner.draw": (2000, 3),
    }
    for z in drawn.values():
        assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 0.001
        assert abs(torch.corrcoef(z[:, :2].T)[0, 1].item()) < 4 / 2000**0.5  # so are its columns
    assert all(name in dict(net.named_buffers()) for name in drawn)
    assert torch.equal(draw_noise(net, 2000, derive(0))["first.draw"], drawn["first.draw"])
    assert not torch.equal(drawn["first.draw"][:, :3], drawn["second.inner.draw"])


@pytest.mark.parametrize("name", ["mlp", "lenet"])
def test_a_deterministic_model_draws_nothing_and_leaves_the_generator_alone(name: str) -> None:
    """So that what other models draw (the order of images, say) does not depend on this feature."""
    rng = derive(0)
    before = rng.get_state()
    assert draw_noise(models.build(name, TASK, 0), 4, rng) == {}
    assert torch.equal(rng.get_state(), before)
