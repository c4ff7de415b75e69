"""What every defense owes that works before there is an update: on the gradient, the images, or the model."""

import copy
from collections.abc import Mapping

import pytest
import torch
from torch import nn

from defenses import DEFENSES
from fl_sim.core.contracts import DataDefense, GradientDefense, ModelDefense
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat, subtract
from fl_sim.core.types import Batch, Tensors
from fl_sim.training.local import gradient, state_of
from tests.conformance.catalogue import NO_OP, gradient_of, made, of_kind, three

on_gradients = pytest.mark.parametrize("name", of_kind(GradientDefense))
on_images = pytest.mark.parametrize("name", of_kind(DataDefense))
in_models = pytest.mark.parametrize("name", of_kind(ModelDefense))


def plain(model: nn.Module, batch: Batch) -> Tensors:
    return gradient(model, state_of(model), batch).tree


def distance(left: Tensors, right: Tensors) -> float:
    return flat(subtract(left, right)).abs().max().item()


def shapes(tree: Tensors) -> list[tuple[str, torch.Size, torch.dtype]]:
    return [(k, t.shape, t.dtype) for k, t in tree.items()]


@on_gradients
def test_a_gradient_keeps_names_shapes_and_types(name: str, model: nn.Module) -> None:
    assert shapes(gradient_of(made(name), model, three())) == shapes(dict(model.named_parameters()))


@on_gradients
def test_a_gradient_is_a_function_of_the_seed_and_not_the_plain_one(name: str, model: nn.Module) -> None:
    first, again = (gradient_of(made(name), model, three(), seed=5) for _ in range(2))
    assert distance(first, again) == 0
    assert distance(first, plain(model, three())) > 0


@on_gradients
def test_a_gradients_weights_images_and_model_are_left_alone(name: str, model: nn.Module) -> None:
    batch, state, mode = three(), state_of(model), model.training
    before: Mapping[str, torch.Tensor] = copy.deepcopy(model.state_dict())
    made_of = copy.deepcopy((batch.images, state.weights))
    defense = made(name)
    assert isinstance(defense, GradientDefense)
    found = defense.gradient(model, state.weights, state.buffers, batch, derive(0))
    assert model.training is mode
    assert torch.equal(batch.images, made_of[0])
    assert distance(state.weights, made_of[1]) == 0
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())
    assert not any(t.requires_grad for t in (*found.values(), *state.weights.values()))


@on_gradients
@pytest.mark.parametrize("shade", [0.0, 1.0])
def test_a_gradient_of_images_without_content_is_finite(name: str, shade: float, model: nn.Module) -> None:
    flat_images = Batch(torch.full_like(three().images, shade), three().labels)
    assert bool(flat(gradient_of(made(name), model, flat_images)).isfinite().all())


@pytest.mark.parametrize("name", sorted(set(of_kind(GradientDefense)) & set(NO_OP)))
def test_a_gradient_without_strength_is_the_plain_one(name: str, model: nn.Module) -> None:
    found = gradient_of(DEFENSES[name](**NO_OP[name]), model, three())
    assert distance(found, plain(model, three())) < 1e-6


def transformed(name: str, batch: Batch, seed: int = 0, options: Mapping[str, object] | None = None) -> Batch:
    defense = made(name) if options is None else DEFENSES[name](**options)
    assert isinstance(defense, DataDefense)
    return defense.transform(batch, derive(seed))


@on_images
def test_images_stay_images_of_the_same_labels_or_of_weights_that_sum_to_one(name: str) -> None:
    out = transformed(name, three())
    assert (out.images.shape, out.images.dtype) == (three().images.shape, torch.float32)
    assert bool(((out.images >= 0) & (out.images <= 1)).all())
    assert not out.images.requires_grad
    if out.labels.dim() == 1:
        assert torch.equal(out.labels, three().labels)
    else:
        assert bool((out.labels >= 0).all())
        assert torch.allclose(out.labels.sum(1), torch.ones(3))


@on_images
def test_images_are_a_function_of_the_seed_and_not_the_given_ones(name: str) -> None:
    first, again = (transformed(name, three(), seed=5).images for _ in range(2))
    assert torch.equal(first, again)
    assert (first - three().images).abs().max() > 0


@on_images
def test_the_images_that_were_given_are_left_alone(name: str) -> None:
    batch = three()
    transformed(name, batch)
    assert torch.equal(batch.images, three().images)
    assert torch.equal(batch.labels, three().labels)


@pytest.mark.parametrize("name", sorted(set(of_kind(DataDefense)) & set(NO_OP)))
def test_images_without_strength_are_those_given(name: str) -> None:
    assert torch.equal(transformed(name, three(), options=NO_OP[name]).images, three().images)


def wrapped(name: str, model: nn.Module, seed: int = 0) -> nn.Module:
    defense = made(name)
    assert isinstance(defense, ModelDefense)
    return defense.wrap(model, derive(seed))


@in_models
def test_a_model_is_another_with_the_same_outputs_shape_and_the_given_one_is_left_alone(
    name: str, model: nn.Module
) -> None:
    before, answers = copy.deepcopy(model.state_dict()), model(three().images)
    net = wrapped(name, model)
    assert net(three().images).shape == answers.shape
    assert list(net.state_dict()) != list(before)
    with torch.no_grad():
        next(net.parameters()).zero_()
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())
    assert torch.equal(model(three().images), answers)


@in_models
def test_a_models_weights_are_a_function_of_the_seed_alone(name: str, model: nn.Module) -> None:
    torch.manual_seed(1)
    first, expected = wrapped(name, model, 5).state_dict(), torch.rand(1)
    again, other = wrapped(name, model, 5).state_dict(), wrapped(name, model, 6).state_dict()
    assert all(torch.equal(t, again[k]) for k, t in first.items())
    assert any(not torch.equal(t, other[k]) for k, t in first.items())
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), expected)
