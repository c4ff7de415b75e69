"""The unrolled descent against the client's own code, run in the same order, and against finite differences."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from attacks.gradients import Guess
from attacks.gradients.descent import Descent, minibatches
from attacks.memory import kept_by
from fl_sim.core.errors import FlSimError
from fl_sim.core.seeds import derive
from fl_sim.core.stochastic import draw_noise
from fl_sim.core.trees import flat, map_tree
from fl_sim.core.types import Batch, Protocol, Tensors
from fl_sim.training import local
from fl_sim.training.local import state_of
from tests.conftest import DRAW, TASK, precoded

N = 5
PROTOCOLS = {
    "plain": Protocol(mode="fedavg", learning_rate=0.3, local_epochs=2, batch_size=2),
    "momentum": Protocol(mode="fedavg", learning_rate=0.1, local_epochs=3, batch_size=2, momentum=0.9),
    "full": Protocol(mode="fedavg", learning_rate=0.3, local_epochs=4, batch_size=N),
}


def net(*, norm: bool) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        norms = nn.BatchNorm2d(4) if norm else nn.Identity()
        return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), norms, nn.Tanh(), nn.Flatten(), nn.Linear(36, 10))


def guess(trials: int, epochs: int = 1) -> Guess:
    images = torch.rand(trials, epochs * N, *TASK.image_shape, generator=derive(1))
    return Guess(images, torch.tensor([0, 1, 1, 3, 7]).repeat(epochs).expand(trials, -1))


def descent(model: nn.Module, protocol: Protocol, whole: int = 99) -> Descent:
    return Descent(model, state_of(model), TASK, protocol, N, -1.0, whole)


def trained(model: nn.Module, batch: Batch, protocol: Protocol, monkeypatch: pytest.MonkeyPatch) -> Tensors:
    """By the client's code, which takes batches in the order that the descent supposes."""

    def ordered(batch: Batch, protocol: Protocol, order: torch.Generator) -> Iterator[Batch]:
        del order
        for places in minibatches(protocol, N):
            own = places % len(batch.labels)
            yield Batch(batch.images[own], batch.labels[own])

    monkeypatch.setattr(local, "minibatches", ordered)
    return local.local_update(model, state_of(model), batch, protocol, derive(0))[0].delta


@pytest.mark.parametrize("norm", ["none", "eval", "train"])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_moves_as_the_client_does_trial_by_trial(name: str, norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch norm by batch statistics is differentiated through, and running ones are left alone."""
    model, given = net(norm=norm != "none"), guess(3)
    protocol = PROTOCOLS[name] if norm != "train" else Protocol(**{**vars(PROTOCOLS[name]), "batchnorm": "train"})
    model.train(norm == "train")
    before = map_tree(torch.clone, state_of(model).buffers)
    moved = descent(model, protocol)(given)
    assert all(torch.equal(b, before[k]) for k, b in state_of(model).buffers.items())
    for trial in range(3):
        expected = trained(model, Batch(given.images[trial], given.labels[trial]), protocol, monkeypatch)
        got = {k: -v[trial] for k, v in moved.items()}
        assert torch.allclose(flat(got), flat(expected), rtol=1e-3, atol=1e-6)


def derivative(of: Descent, images: Tensor) -> Tensor:
    images = images.clone().requires_grad_()
    target = derive(3)
    moved = of(guess(len(images))._replace(images=images))
    cost = sum((m - torch.randn(m.shape[1:], generator=target)).square().sum() for m in moved.values())
    assert isinstance(cost, Tensor)
    return torch.autograd.grad(cost, images)[0]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_what_is_run_again_gives_the_same_derivative_and_keeps_less(name: str) -> None:
    model, images = net(norm=True).eval(), guess(2).images
    whole, again = (descent(model, PROTOCOLS[name], whole=n) for n in (99, 1))
    assert torch.allclose(derivative(whole, images), derivative(again, images), rtol=1e-4, atol=1e-5)
    wanted = guess(2)._replace(images=images.requires_grad_())
    assert kept_by(partial(again, wanted)) < 0.8 * kept_by(partial(whole, wanted))


def test_memory_grows_with_the_root_of_the_steps() -> None:
    model, given = net(norm=False), guess(1)
    given = given._replace(images=given.images.requires_grad_())

    def kept(epochs: int, whole: int) -> int:
        protocol = Protocol(mode="fedavg", local_epochs=epochs, batch_size=N)
        return kept_by(partial(descent(model, protocol, whole), given))

    assert kept(100, 1) < 5 * kept(9, 1)
    assert kept(100, 99) < kept(100, 100) / 5


def test_the_derivative_is_that_of_finite_differences() -> None:
    model = net(norm=False).double()
    of, given = descent(model, PROTOCOLS["momentum"], whole=1), guess(1)

    def cost(images: Tensor) -> Tensor:
        return torch.stack([m.sum() for m in of(given._replace(images=images)).values()]).sum()

    images = given.images.double().requires_grad_()
    (slope,) = torch.autograd.grad(cost(images), images)
    for place in [(0, 0, 0, 3, 3), (0, 4, 0, 5, 2)]:
        step = torch.zeros_like(images).index_put(tuple(torch.tensor(i) for i in place), torch.tensor(1e-5).double())
        difference = (cost(images + step) - cost(images - step)) / 2e-5
        assert slope[place].item() == pytest.approx(difference.item(), rel=1e-4)


def test_epochs_may_have_images_of_their_own() -> None:
    model, protocol = net(norm=False), PROTOCOLS["plain"]
    shared, own = descent(model, protocol)(guess(1)), guess(1)
    twice = Guess(own.images.repeat(1, 2, 1, 1, 1), own.labels.repeat(1, 2))
    of = descent(model, protocol)
    assert torch.equal(flat(of(twice)), flat(shared))
    changed = twice._replace(images=torch.cat([own.images, 1 - own.images], 1))
    assert not torch.allclose(flat(of(changed)), flat(shared))
    with pytest.raises(FlSimError, match="guess of 5 images"):
        of(Guess(own.images[:, :3], own.labels[:, :3]))


def test_draws_go_with_their_images() -> None:
    """What a stochastic model drew for an image is used where the image is."""
    model, given = precoded(8, 4).eval(), guess(2)
    drawn = draw_noise(model, 2 * N, derive(2))[DRAW].view(2, N, 4)
    of = descent(model, PROTOCOLS["plain"])
    one = of(given._replace(noise={DRAW: drawn}))
    alone = of(Guess(given.images[1:], given.labels[1:], {DRAW: drawn[1:]}))
    assert torch.allclose(flat({k: v[1] for k, v in one.items()}), flat({k: v[0] for k, v in alone.items()}), atol=1e-6)
    assert not torch.allclose(flat(of(given)), flat(one), atol=1e-6)
