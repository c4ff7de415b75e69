"""Clipping against vectors shortened one by one."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import pytest
import torch
from torch import Tensor

from defenses.clipping import Clip
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat
from fl_sim.core.types import Tensors, Update

Scope: TypeAlias = Literal["global", "layer"]
SHAPES: Mapping[str, tuple[int, ...]] = {"w": (6, 5), "b": (5,), "scalar": ()}
SCOPES = pytest.mark.parametrize("scope", ["global", "layer"])


def update(factor: float = 1.0) -> Update:
    tree = {k: factor * torch.randn(s, generator=derive(0, k)) for k, s in SHAPES.items()}
    return Update(delta=tree, num_examples=1)


def shortened(vector: Tensor, most: float) -> Tensor:
    return vector * torch.clamp(most / vector.norm(), max=1.0)


def slowly(tree: Tensors, most: float, scope: Scope) -> Tensors:
    if scope == "layer":
        return {name: shortened(t, most) for name, t in tree.items()}
    factor = shortened(flat(tree), most).norm() / flat(tree).norm()
    return {name: t * factor for name, t in tree.items()}


@SCOPES
@pytest.mark.parametrize("factor", [1e-3, 0.3, 1.0, 1e4])
def test_it_is_shortened_as_one_vector_or_tensor_by_tensor(factor: float, scope: Scope) -> None:
    before = update(factor)
    found = Clip(norm=1.0, scope=scope).protect(before, derive(0)).update.delta
    expected = slowly(before.delta, 1.0, scope)
    assert all(torch.allclose(found[k], expected[k], rtol=1e-5) for k in SHAPES)


def test_the_direction_stays_and_the_norm_is_the_bound() -> None:
    before = update(10.0)
    protected = Clip(norm=0.7).protect(before, derive(0))
    after = protected.update.delta
    assert torch.cosine_similarity(flat(after), flat(before.delta), dim=0).item() == pytest.approx(1)
    assert flat(after).norm().item() == pytest.approx(0.7)
    assert protected.stats == pytest.approx({"norm_before": flat(before.delta).norm().item(), "norm_after": 0.7})


def test_by_layer_each_tensor_keeps_its_own_direction_and_bound() -> None:
    before = update(10.0)
    after = Clip(norm=0.7, scope="layer").protect(before, derive(0)).update.delta
    for name, tensor in after.items():
        assert tensor.norm().item() == pytest.approx(0.7)
        assert bool((tensor * before.delta[name] >= 0).all())
    assert flat(after).norm().item() > 0.7


@SCOPES
def test_what_is_short_enough_is_not_touched(scope: Scope) -> None:
    before = update(1e-3)
    after = Clip(norm=1.0, scope=scope).protect(before, derive(0)).update.delta
    assert all(torch.equal(after[k], before.delta[k]) for k in SHAPES)


@SCOPES
def test_trials_are_shortened_each_for_itself_and_differentiably(scope: Scope) -> None:
    trees = [{k: t.double() for k, t in update(factor).delta.items()} for factor in (0.1, 3.0)]
    trials = {k: torch.stack([t[k] for t in trees]) for k in SHAPES}
    clip = Clip(norm=1.0, scope=scope)
    (choice,) = clip.choices(trials, {})
    assert choice.probability == 1
    for i, tree in enumerate(trees):
        expected = slowly(tree, 1.0, scope)
        assert all(torch.allclose(choice.values[k][i], expected[k]) for k in SHAPES)

    def first(w: Tensor, b: Tensor, scalar: Tensor) -> tuple[Tensor, ...]:
        return tuple(clip.shortened({"w": w, "b": b, "scalar": scalar}).values())

    assert torch.autograd.gradcheck(first, [t.requires_grad_() for t in trials.values()])


@SCOPES
def test_at_zero_its_derivative_is_finite(scope: Scope) -> None:
    zeros = {k: torch.zeros(1, *s).requires_grad_() for k, s in SHAPES.items()}
    total = flat(Clip(norm=1.0, scope=scope).shortened(zeros)).sum()
    assert all(bool((g == 1).all()) for g in torch.autograd.grad(total, list(zeros.values())))
