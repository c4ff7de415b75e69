"""The attack ``r_gap``: one image, back through a chain of layers."""

import math
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attacks.analytic import r_gap, ratio
from attacks.analytic.chain import UNDO, Link, links_of
from attacks.analytic.r_gap import least_squares
from attacks.problem import Problem
from defenses.noise import Gaussian
from fl_sim import models
from fl_sim.core.errors import UnmetKnowledgeError
from fl_sim.core.seeds import derive
from fl_sim.core.trees import map_tree
from fl_sim.core.types import Batch, Outcome, Protocol
from fl_sim.metrics.image import psnr
from tests.conftest import TASK, observe


@pytest.fixture
def lenet() -> nn.Module:
    return models.build("lenet", TASK, 3)


def links(net: nn.Module, batch: Batch) -> list[Link]:
    return links_of(Problem.of(observe(net, batch), net, derive(0), "cpu"))[0]


def wound(**layers: nn.Module) -> nn.Module:
    """A network like the registered ones, its weights a function of nothing."""
    net = models.Model(models.Normalise(TASK.mean, TASK.std), nn.Sequential(OrderedDict(layers)))
    for i, weight in enumerate(net.parameters()):
        nn.init.normal_(weight, std=0.15, generator=derive(i))
    return net


def mixed() -> nn.Module:
    """Every kind of layer and activation; dilation and padding; a layer without a bias."""
    return wound(
        conv1=nn.Conv2d(1, 6, 3, padding=1, bias=False),
        tanh=nn.Tanh(),
        conv2=nn.Conv2d(6, 8, 3, padding=2, dilation=2),
        leaky=nn.LeakyReLU(0.2),
        flatten=nn.Flatten(),
        fc=nn.Linear(512, 150),
        sigmoid=nn.Sigmoid(),
        head=nn.Linear(150, 10),
    )


@pytest.mark.parametrize("label", [0, 7])
def test_the_image_is_found_exactly(lenet: nn.Module, batch: Batch, label: int) -> None:
    batch = Batch(batch.images, torch.tensor([label]))
    found = r_gap()(observe(lenet, batch), lenet, derive(0))
    assert psnr(found.images, batch.images).item() > 110
    assert found.labels.tolist() == [label]
    assert found.outcome is Outcome.CONVERGED
    assert found.loss < 1e-5
    assert 0 < found.budget.iterations < 2000


def test_layers_and_activations_may_be_mixed(batch: Batch) -> None:
    net = mixed()
    assert psnr(r_gap()(observe(net, batch), net, derive(0)).images, batch.images).item() > 80


def test_without_links_it_is_the_ratio(batch: Batch) -> None:
    net = models.build("softmax", TASK, 0)
    seen = observe(net, batch)
    assert torch.equal(r_gap()(seen, net, derive(0)).images, ratio()(seen, net, derive(0)).images)


def test_the_scale_of_the_gradient_does_not_matter(lenet: nn.Module, batch: Batch) -> None:
    seen = replace(observe(lenet, batch, Protocol(mode="fedavg", learning_rate=0.3)), protocol=None)
    found = r_gap()(seen, lenet, derive(0))
    assert psnr(found.images, batch.images).item() > 80
    assert found.outcome is Outcome.CONVERGED


def test_noise_is_multiplied_and_said(lenet: nn.Module, batch: Batch) -> None:
    seen = observe(lenet, batch)
    for std, least, outcome in ((1e-5, 60, Outcome.CONVERGED), (1e-2, 0, Outcome.OUT_OF_STEPS)):
        noisy = replace(seen, update=Gaussian(std=std).protect(seen.update, derive(1)).update)
        found = r_gap()(noisy, lenet, derive(0))
        assert psnr(found.images, batch.images).item() > least
        assert found.outcome is outcome
        assert found.loss > std / 10


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_an_update_without_an_image_is_said_to_be_so(lenet: nn.Module, batch: Batch, value: float) -> None:
    seen = observe(lenet, batch)
    nothing = map_tree(lambda t: torch.full_like(t, value), seen.update.delta)
    found = r_gap()(replace(seen, update=replace(seen.update, delta=nothing)), lenet, derive(0))
    assert (found.outcome, found.loss) == (Outcome.NON_FINITE, math.inf)


def test_the_three_maps_of_a_layer_belong_together(batch: Batch) -> None:
    for i, link in enumerate(links(mixed(), batch)):
        x, d = (torch.randn(shape, generator=derive(i, *shape)).double() for shape in (link.shape, link.out))
        product = (link.forward(x, link.weight) * d).sum()
        assert torch.isclose((x * link.backward(d, link.weight)).sum(), product)
        assert torch.isclose((link.weight * link.weigh(x, d)).sum(), product)


def test_activations_are_undone_with_their_slopes(batch: Batch) -> None:
    inside = torch.linspace(-3, 3, 50).double().requires_grad_()
    for module in (nn.Sigmoid(), nn.Tanh(), nn.LeakyReLU(0.1)):
        out = module(inside)
        (expected,) = torch.autograd.grad(out.sum(), inside)
        before, slope = UNDO[type(module)](module, out.detach())
        assert torch.allclose(before, inside)
        assert torch.allclose(slope, expected)
    for kind in (nn.Sigmoid, nn.Tanh):
        before, slope = UNDO[kind](kind(), torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).double())
        assert before.isfinite().all()
        assert (slope > 0).all()


def test_a_layers_equations_have_its_input_as_their_solution(lenet: nn.Module, batch: Batch) -> None:
    link = links(lenet, batch)[1]
    x, delta = (torch.randn(shape, generator=derive(*shape)).double() for shape in (link.shape, link.out))
    known = replace(link, gradient=link.weigh(x, delta))
    slope = torch.full(link.out, 0.2).double()
    found, steps = least_squares(known, link.forward(x, link.weight), slope, delta, 1000)
    assert torch.allclose(found, x, atol=1e-8)
    assert steps < 500
    assert least_squares(known, link.forward(x, link.weight), slope, delta, 3)[1] == 3


def test_several_images_are_refused(lenet: nn.Module, batch: Batch) -> None:
    two = Batch(batch.images.repeat(2, 1, 1, 1), torch.tensor([1, 2]))
    with pytest.raises(UnmetKnowledgeError, match="2 are in this update: set batch_size = 1"):
        r_gap()(observe(lenet, two), lenet, derive(0))


@pytest.mark.parametrize(
    ("name", "reason"), [("mlp", "ReLU"), ("cnn", "ReLU"), ("convnet", "BatchNorm2d"), ("resnet18", "BatchNorm2d")]
)
def test_what_loses_information_is_refused(name: str, reason: str) -> None:
    net = models.build(name, replace(TASK, image_shape=(1, 16, 16)), 0)
    batch = Batch(torch.rand(1, 1, 16, 16), torch.tensor([1]))
    large = replace(observe(net, batch), task=replace(TASK, image_shape=(1, 16, 16)))
    with pytest.raises(UnmetKnowledgeError, match=f"this model has {reason}.*: use the model lenet"):
        r_gap()(large, net, derive(0))


def test_layers_without_an_activation_or_a_bias_at_the_end_are_refused(batch: Batch) -> None:
    for layers in (
        {"flatten": nn.Flatten(), "fc": nn.Linear(64, 10), "head": nn.Linear(10, 10)},
        {"flatten": nn.Flatten(), "fc": nn.Linear(64, 10), "tanh": nn.Tanh()},
        {"flatten": nn.Flatten(), "fc": nn.Linear(64, 9), "tanh": nn.Tanh(), "head": nn.Linear(9, 10, bias=False)},
    ):
        net = wound(**layers)
        with pytest.raises(UnmetKnowledgeError, match="in another order, or without: use the model lenet"):
            r_gap()(observe(net, batch), net, derive(0))


class Skipping(nn.Module):
    """A chain by its modules, and not by what it does with them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.tanh, self.head = nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        logits: Tensor = self.head(flat + self.tanh(self.fc(flat)))
        return logits


def test_a_model_that_is_no_chain_is_refused(batch: Batch) -> None:
    net = wound(flatten=nn.Flatten(), skipping=Skipping())
    with pytest.raises(UnmetKnowledgeError, match="not run one after the other"):
        r_gap()(observe(net, batch), net, derive(0))
