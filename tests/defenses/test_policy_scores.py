"""The policy search's scores against their formulas, written out."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from defenses.ats import ENTRIES, chains_of
from defenses.policy_scores import accuracy_score, privacy_score, random_policies
from fl_sim import models
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Tensors
from fl_sim.training.local import example_gradients, gradient, state_of
from tests.conftest import TASK


def test_the_privacy_score_is_the_area_under_the_mean_cosine() -> None:
    """As the released code goes: one gradient a point, trapezoids one by one."""
    net = models.build("lenet", TASK, 0).eval()
    state, label = state_of(net), torch.tensor([3])
    image, noise = (torch.rand(TASK.image_shape, generator=derive(i)) for i in (0, 1))

    def one(picture: Tensor) -> Tensors:
        return gradient(net, state, Batch(picture[None], label)).tree

    def cosine(a: Tensor, b: Tensor) -> float:
        return float((a * b).sum() / (a.norm() * b.norm()))

    goal, heights = one(image), []
    for i in range(21):
        tree = one(i / 20 * image + (20 - i) / 20 * noise)
        heights.append(sum(cosine(tree[k], goal[k]) for k in goal) / len(goal))
    area = sum((left + right) / 40 for left, right in pairwise(heights))
    found = privacy_score(
        lambda images: example_gradients(net, state, Batch(images, label.expand(len(images)))), image, noise
    )
    assert found == pytest.approx(area, abs=1e-5)
    assert heights[-1] == pytest.approx(1)


def test_the_accuracy_score_is_that_of_the_eigenvalues() -> None:
    rows = torch.randn(6, 40, generator=derive(0)) + torch.randn(40, generator=derive(1))
    values = np.linalg.eigvals(np.corrcoef(rows.double().numpy())).real + 1e-5
    assert accuracy_score(rows) == pytest.approx(-float(np.sum(np.log(values) + 1 / values)) / 6, rel=1e-6)


def test_unlike_answers_score_best_and_equal_ones_worst() -> None:
    unlike = torch.linalg.qr(torch.randn(40, 5, generator=derive(0))).Q.T
    unlike = unlike - unlike.mean(1, keepdim=True)
    alike = torch.randn(1, 40, generator=derive(1)) + 1e-3 * torch.randn(5, 40, generator=derive(2))
    assert -1.2 < accuracy_score(unlike) <= -0.999
    assert accuracy_score(alike) < -1000
    assert accuracy_score(torch.ones(5, 40)) == -math.inf


def test_random_policies_are_different_chains_of_all_lengths_and_entries() -> None:
    found = random_policies(600, 3, derive(0))
    assert len(set(found)) == 600
    chains = [chain for policy in found for chain in chains_of(policy)]
    assert {len(chain) for chain in chains} == {1, 2, 3}
    assert {entry for chain in chains for entry in chain} == set(range(len(ENTRIES)))
    assert found == random_policies(600, 3, derive(0))
