"""DP-SGD against gradients clipped one by one, and against samples of its own noise."""

import math
from collections.abc import Sequence

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from defenses.dpsgd import DpSgd
from fl_sim.core.density import Normal
from fl_sim.core.seeds import derive
from fl_sim.core.stochastic import draw_noise
from fl_sim.core.trees import flat, global_norm, subtract
from fl_sim.core.types import Batch, Protocol, Tensors
from fl_sim.training.local import Gradient, State, gradient, local_update, state_of
from tests.conftest import TASK, precoded


@pytest.fixture
def three() -> Batch:
    return Batch(torch.rand(3, *TASK.image_shape, generator=derive(0, "three")), torch.tensor([1, 5, 5]))


def singles(net: nn.Module, state: State, batch: Batch) -> list[Tensors]:
    """Each image's gradient, one image and one of the model's draws at a time."""
    found = []
    for i in range(len(batch.labels)):
        buffers = {name: b[i, None] if name.endswith(".draw") else b for name, b in state.buffers.items()}
        one = Batch(batch.images[i, None], batch.labels[i, None])
        found.append(gradient(net, State(state.weights, buffers), one).tree)
    return found


def mean_of_clipped(trees: Sequence[Tensors], most: float) -> Tensor:
    vectors = [flat(tree) * min(1.0, most / global_norm(tree).item()) for tree in trees]
    return torch.stack(vectors).mean(0)


def sent(defense: DpSgd, net: nn.Module, state: State, batch: Batch, seed: int = 0) -> Tensors:
    return defense.gradient(net, state.weights, state.buffers, batch, derive(seed))


def some_are_clipped(trees: list[Tensors]) -> float:
    """A bound between the norms: one gradient is longer, one is shorter."""
    norms = sorted(global_norm(tree).item() for tree in trees)
    return (norms[0] + norms[-1]) / 2


def test_without_noise_it_is_the_mean_of_clipped_gradients(model: nn.Module, three: Batch) -> None:
    trees = singles(model, state_of(model), three)
    clip = some_are_clipped(trees)
    found = sent(DpSgd(clip=clip, noise_multiplier=0), model, state_of(model), three)
    assert list(found) == list(trees[0])
    assert torch.allclose(flat(found), mean_of_clipped(trees, clip), atol=1e-7)
    assert not torch.allclose(flat(found), mean_of_clipped(trees, 1e9), atol=1e-3)


def test_without_noise_and_bound_it_is_the_plain_gradient(model: nn.Module, three: Batch) -> None:
    plain = gradient(model, state_of(model), three).tree
    found = sent(DpSgd(clip=1e9, noise_multiplier=0), model, state_of(model), three)
    assert flat(subtract(found, plain)).abs().max() < 1e-6


def test_each_example_is_computed_with_its_own_draw(three: Batch) -> None:
    net = precoded(16, 4)
    state = state_of(net)
    state = state._replace(buffers={**state.buffers, **draw_noise(net, 3, derive(1))})
    trees = singles(net, state, three)
    clip = some_are_clipped(trees)
    found = flat(sent(DpSgd(clip=clip, noise_multiplier=0), net, state, three))
    assert torch.allclose(found, mean_of_clipped(trees, clip), atol=1e-6)
    at_mean = flat(sent(DpSgd(clip=clip, noise_multiplier=0), net, state_of(net), three))
    assert not torch.allclose(found, at_mean, atol=1e-3)


@pytest.mark.parametrize("images", [1, 3])
def test_the_noise_has_the_multipliers_share_of_the_clip_over_n(model: nn.Module, three: Batch, images: int) -> None:
    """K16: std ``multiplier * clip / N``, where noise on every example would shrink with the root of N."""
    batch = Batch(three.images[:images], three.labels[:images])
    loud, silent = DpSgd(clip=0.5, noise_multiplier=0.4), DpSgd(clip=0.5, noise_multiplier=0)
    state = state_of(model)
    noise = flat(subtract(sent(loud, model, state, batch), sent(silent, model, state, batch))).numpy()
    std = 0.4 * 0.5 / images
    assert loud.noise(images) == Normal(std)
    assert silent.noise(images) is None
    assert len(noise) > 2000
    assert stats.kstest(noise, stats.norm(scale=std).cdf).pvalue > 0.001
    assert noise.std() == pytest.approx(std, rel=4 / math.sqrt(2 * len(noise)))


def test_noise_is_a_function_of_the_generator(model: nn.Module, three: Batch) -> None:
    defense, state = DpSgd(clip=0.5, noise_multiplier=0.4), state_of(model)
    first, again, other = (flat(sent(defense, model, state, three, seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    rng = derive(3)
    steps = [flat(defense.gradient(model, state.weights, state.buffers, three, rng)) for _ in range(2)]
    assert not torch.equal(*steps)  # each local step has noise of its own


def test_one_example_that_is_far_too_long_moves_the_mean_by_no_more_than_its_share(
    model: nn.Module, three: Batch
) -> None:
    """What clipping is for: the sensitivity of the sum is the clip."""
    defense, state = DpSgd(clip=0.1, noise_multiplier=0), state_of(model)
    with_it = sent(defense, model, state, three)
    replaced = Batch(torch.cat([torch.full_like(three.images[:1], 50.0), three.images[1:]]), three.labels)
    moved = global_norm(subtract(with_it, sent(defense, model, state, replaced))).item()
    assert 0 < moved <= 2 * 0.1 / 3 * 1.001


def test_trials_are_joined_each_for_itself_and_differentiably() -> None:
    shapes = {"w": (3, 2), "b": (3,)}
    trials = {k: torch.randn(2, 3, *s, generator=derive(0, k)).double() for k, s in shapes.items()}
    defense = DpSgd(clip=3.0, noise_multiplier=0)
    joined = defense.join(trials)
    for trial in range(2):
        trees = [{k: t[trial, n] for k, t in trials.items()} for n in range(3)]
        norms = [global_norm(tree).item() for tree in trees]
        assert min(norms) < 3 < max(norms)
        assert torch.allclose(flat({k: t[trial] for k, t in joined.items()}), mean_of_clipped(trees, 3.0))

    def values(w: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return tuple(defense.join({"w": w, "b": b}).values())

    assert torch.autograd.gradcheck(values, [t.requires_grad_() for t in trials.values()])


def test_an_empty_poisson_sample_is_noise_alone_over_the_size_expected(model: nn.Module) -> None:
    """One image, drawn once in a hundred times: what is sent is learning rate times noise."""
    protocol = Protocol(mode="fedavg", batch_size=1, learning_rate=0.5, sampling="poisson")
    batch = Batch(torch.rand(100, *TASK.image_shape, generator=derive(0)), torch.zeros(100, dtype=torch.int64))
    nothing = Batch(batch.images[:0], batch.labels[:0])
    defense, rng, state = DpSgd(clip=2.0, noise_multiplier=3.0), derive(1), state_of(model)

    def rule(net: nn.Module, at: State, part: Batch) -> Gradient:
        return gradient(net, at, part)._replace(tree=defense.gradient(net, at.weights, at.buffers, part, rng))

    steps = protocol.steps(100)
    update, _ = local_update(model, state, batch, protocol, derive(2), rule)
    spread = flat(update.delta).std().item()
    assert spread == pytest.approx(0.5 * math.sqrt(steps) * 6.0, rel=0.1)
    alone = flat(defense.gradient(model, state.weights, state.buffers, nothing, derive(3)))
    assert stats.kstest(alone.numpy(), stats.norm(scale=6.0).cdf).pvalue > 0.01
