import math

import pytest
import torch

from fl_sim.core import trees
from fl_sim.core.seeds import derive
from fl_sim.core.types import Tensors

TREE: Tensors = {"w": torch.tensor([[1.0, -2.0], [2.0, 0.0]]), "b": torch.tensor([4.0])}
OTHER: Tensors = {"b": torch.tensor([2.0]), "w": torch.ones(2, 2)}  # the same names in another order


def listed(tree: Tensors) -> dict[str, object]:
    return {name: t.tolist() for name, t in tree.items()}


def test_norm_and_size_are_those_of_one_vector() -> None:
    assert trees.global_norm(TREE).item() == 5
    assert trees.size(TREE) == 5
    assert trees.flat(TREE).tolist() == [1, -2, 2, 0, 4]


def test_trees_meet_by_name_not_by_order() -> None:
    assert listed(trees.add(TREE, OTHER, 0.5)) == {"w": [[1.5, -1.5], [2.5, 0.5]], "b": [5]}
    assert listed(trees.subtract(TREE, OTHER)) == {"w": [[0, -3], [1, -1]], "b": [2]}


def test_adding_back_what_was_subtracted_changes_nothing() -> None:
    assert listed(trees.add(trees.subtract(TREE, OTHER), OTHER)) == listed(TREE)


def test_scaling_and_mapping_keep_names_and_order() -> None:
    assert listed(trees.scale(TREE, -2)) == {"w": [[-2, 4], [-4, 0]], "b": [-8]}
    assert listed(trees.scale(TREE, -2)) == listed(trees.map_tree(lambda t: -2 * t, TREE))
    assert list(trees.scale(TREE, 3)) == ["w", "b"]


def test_nothing_is_done_in_place() -> None:
    before = listed(TREE)
    for made in (
        trees.add(TREE, OTHER),
        trees.subtract(TREE, OTHER),
        trees.scale(TREE, 0),
        trees.add_normal(TREE, 1, derive(0)),
    ):
        assert all(made[name] is not t for name, t in TREE.items())
    assert listed(TREE) == before


def test_added_noise_has_the_spread_it_says_and_is_not_repeated() -> None:
    zeros: Tensors = {"a": torch.zeros(20_000), "b": torch.zeros(20_000)}
    noise = trees.add_normal(zeros, 0.3, derive(0))
    for t in noise.values():
        assert t.std().item() == pytest.approx(0.3, abs=4 * 0.3 / math.sqrt(2 * 20_000))
        assert abs(t.mean().item()) < 4 * 0.3 / math.sqrt(20_000)
    assert not torch.equal(noise["a"], noise["b"])
