"""Mixup and InstaHide against blends written out, and what training makes of blended labels."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from defenses.mixing import InstaHide, Mixup, mixed
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Protocol
from fl_sim.training.local import example_gradients, gradient, local_update, state_of
from tests.conftest import TASK


def batch_of(count: int) -> Batch:
    return Batch(torch.rand(count, *TASK.image_shape, generator=derive(0, count)), torch.arange(count) % 7)


def shares(images: Tensor, of: Batch) -> Tensor:
    """How much of each image of ``of`` is in each blend, by least squares; ``(N, M)``."""
    found: Tensor = torch.linalg.lstsq(of.images.flatten(1).T.double(), images.flatten(1).T.double()).solution
    return found.T


def test_mixup_blends_each_image_with_one_other_and_labels_alike() -> None:
    batch = batch_of(20)
    out = Mixup(alpha=1.0).transform(batch, derive(1))
    found = shares(out.images, batch)
    assert torch.equal((found > 1e-4).sum(1), torch.full((20,), 2))
    assert torch.allclose(found.sum(1), torch.ones(20).double(), atol=1e-5)
    assert torch.allclose(found.float() @ one_hot(batch.labels).float(), out.labels, atol=1e-4)


@pytest.mark.parametrize(("alpha", "variance"), [(0.3, 1 / (4 * 1.6)), (1.0, 1 / 12), (4.0, 1 / 36)])
def test_mixups_weights_are_of_a_beta_law(alpha: float, variance: float) -> None:
    batch = Batch(torch.zeros(4000, 1, 1, 1), torch.arange(4000))
    weights = Mixup(alpha=alpha).transform(batch, derive(2)).labels.diagonal()
    assert weights.mean().item() == pytest.approx(0.5, abs=0.02)
    assert weights.var().item() == pytest.approx(variance, rel=0.07)


def test_instahide_blends_k_images_then_inverts_half_of_the_pixels() -> None:
    batch, hide = batch_of(12), InstaHide(mixes=4)
    out = hide.transform(batch, derive(3))
    weights = torch.stack([hide._weights(derive(3, i)) for i in range(200)])
    assert weights.max() <= 0.65
    assert torch.allclose(weights.sum(1), torch.ones(200))
    assert torch.equal((out.labels > 0).sum(1).clamp_max(4), (out.labels > 0).sum(1))
    shade = Batch(torch.full((12, 1, 8, 8), 0.9), batch.labels)
    flipped = hide.transform(shade, derive(3)).images
    assert torch.allclose((flipped - 0.5).abs(), torch.full_like(flipped, 0.4), atol=1e-6)
    assert (flipped < 0.5).float().mean().item() == pytest.approx(0.5, abs=0.06)


def test_partners_differ_where_there_are_enough_and_repeat_where_not() -> None:
    batch = batch_of(5)
    thirds = torch.full((3, 5), 1 / 3)
    found = shares(mixed(batch, thirds, derive(0)).images, batch)
    assert torch.allclose(found.sort(1).values[:, -3:], torch.full((5, 3), 1 / 3).double(), atol=1e-4)
    alone = batch_of(1)
    assert torch.allclose(mixed(alone, thirds[:, :1], derive(0)).images, alone.images)


def test_blended_labels_train_by_their_weights(model: nn.Module) -> None:
    """The weighted sum of two cross-entropies (arXiv 1710.09412); for each example, and in local steps."""
    batch, weight = batch_of(3), torch.tensor([[0.25, 0.5, 1.0], [0.75, 0.5, 0.0]])
    blend, state = mixed(batch, weight, derive(0)), state_of(model)
    logits = model(blend.images).detach()
    expected = sum(
        w * cross_entropy(logits[i, None], torch.tensor([c]))
        for i in range(3)
        for c, w in enumerate(blend.labels[i].tolist())
    )
    assert blend.labels.shape == (3, 3)  # of ten classes
    found = gradient(model, state, blend)
    assert found.loss.item() == pytest.approx(float(expected) / 3, rel=1e-5)
    singles = example_gradients(model, state, blend)
    assert all(torch.allclose(singles[name].mean(0), t, atol=1e-6) for name, t in found.tree.items())
    update, _ = local_update(model, state, blend, Protocol(mode="fedavg", batch_size=2), derive(1))
    assert update.num_examples == 3
