from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture
from torch import Tensor

from attacks.priors import FittedMixture, Mixture
from attacks.priors.mixture import Components, log_density
from attacks.problem import Problem
from fl_sim.core.errors import ConfigError
from fl_sim.core.seeds import derive
from tests.attacks.priors.conftest import about, components, images, write
from tests.conftest import TASK


def foreign(vectors: Tensor, mixture: Components) -> Tensor:
    """By scipy, from covariances."""
    precisions = mixture.factors @ mixture.factors.mT
    each = [
        float(weight) + multivariate_normal.logpdf(vectors.numpy(), mean.numpy(), torch.linalg.inv(precision).numpy())
        for weight, mean, precision in zip(*mixture[:2], precisions, strict=True)
    ]
    return torch.from_numpy(np.logaddexp.reduce(each))


@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("size", [1, 12])
def test_full_covariances_agree_with_scipy(size: int, number: int) -> None:
    mixture = components(number, size)
    vectors = 2 * torch.randn(30, size, generator=derive(1), dtype=torch.float64)
    assert torch.allclose(log_density(vectors, mixture), foreign(vectors, mixture).view(30), rtol=1e-9)


def test_agrees_with_scikit_learn() -> None:
    draws = torch.randn(200, 5, generator=derive(1), dtype=torch.float64)
    em = GaussianMixture(3, random_state=0).fit(draws.numpy())
    weights, means, factors = map(torch.from_numpy, (em.weights_, em.means_, em.precisions_cholesky_))
    expected = torch.from_numpy(em.score_samples(draws.numpy()))
    assert torch.allclose(log_density(draws, Components(weights.log(), means, factors)), expected, rtol=1e-9)


def test_isotropic_is_full_with_a_scaled_identity() -> None:
    mixture, stds = components(3, 7), torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    vectors = torch.randn(9, 7, generator=derive(1), dtype=torch.float64)
    full = mixture._replace(factors=torch.eye(7, dtype=torch.float64) / stds[:, None, None])
    assert torch.allclose(log_density(vectors, mixture._replace(factors=1 / stds)), log_density(vectors, full))


def test_far_from_everything_it_is_the_nearest_component() -> None:
    """Where every density is zero to float32."""
    mixture = Components(torch.tensor([0.5, 0.5]).log(), torch.tensor([[0.0], [10.0]]), torch.ones(2))
    found = log_density(torch.tensor([[1000.0]]), mixture)
    assert found.item() == pytest.approx(np.log(0.5) - 990**2 / 2 - np.log(2 * np.pi) / 2, rel=1e-6)


def test_one_pixel_of_two_spikes(problem: Problem) -> None:
    """K7's posterior: density 7.98 at the narrow one, 0.319 at the wide one."""
    task = replace(TASK, image_shape=(1, 1, 1), mean=(0.0,), std=(1.0,))
    narrow = replace(problem, seen=replace(problem.seen, task=task))
    prior = Mixture(means=((0.0,), (3.0,)), stds=(0.01, 1.0), weights=(0.2, 0.8))
    cost = prior(torch.tensor([0.0, 3.0]).view(2, 1, 1, 1, 1), narrow)
    assert (-cost).exp().tolist() == pytest.approx([7.98, 0.319], rel=1e-3)


def test_given_components_are_over_normalised_pixels(problem: Problem) -> None:
    means = torch.randn(2, 64, generator=derive(1))
    prior = Mixture.isotropic(means.tolist(), std=0.5, weights=(3, 1))
    exact = Components(torch.tensor([0.75, 0.25]).log(), means, torch.tensor([2.0, 2.0]))
    pixels = images(2, 3)
    vectors = ((pixels - TASK.mean[0]) / TASK.std[0]).flatten(2)
    expected = torch.stack([-log_density(batch, exact).sum() for batch in vectors])
    assert torch.allclose(prior(pixels, problem), expected, rtol=1e-5)


def test_a_fitted_mixture_comes_back_from_its_file(problem: Problem, mixture_file: str) -> None:
    """Within float32 of the same in float64 by scipy."""
    pixels = images(2, 3)
    vectors = ((pixels.double() - TASK.mean[0]) / TASK.std[0]).flatten(2)
    expected = torch.stack([-foreign(batch, components(3)).sum() for batch in vectors])
    assert FittedMixture(path=mixture_file)(pixels, problem).tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_one_gaussian_is_a_mixture_too(problem: Problem, tmp_path: Path) -> None:
    tensors = {name: t.float() for name, t in components(1)._asdict().items()}
    path = write(tmp_path / "gaussian.safetensors", tensors, about("gaussian"))
    assert FittedMixture(path=path)(images(1, 1), problem).shape == (1,)


def test_another_tasks_normalisation_moves_it_by_nothing(problem: Problem, mixture_file: str) -> None:
    """The file's own normalisation counts."""
    prior, other = FittedMixture(path=mixture_file), replace(TASK, mean=(0.0,), std=(1.0,))
    moved = replace(problem, seen=replace(problem.seen, task=other))
    assert torch.equal(prior(images(1, 2), moved), prior(images(1, 2), problem))


def test_means_of_another_size_are_refused(problem: Problem) -> None:
    with pytest.raises(ConfigError, match=r"vectors of 3 entries .* \(1, 8, 8\): give means of 64 entries"):
        Mixture.isotropic([(0.0, 0.0, 0.0)], std=1.0).check(problem.seen, problem.model)


@pytest.mark.parametrize(
    "parts",
    [
        {"means": ((0.0,), (1.0,)), "stds": (1.0,), "weights": (1.0, 1.0)},
        {"means": ((0.0,), (1.0, 2.0)), "stds": (1.0, 1.0), "weights": (1.0, 1.0)},
        {"means": (), "stds": (), "weights": ()},
    ],
)
def test_components_that_do_not_match_are_refused(parts: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ConfigError, match="as many means of one length as stds and weights"):
        Mixture(**parts)  # type: ignore[arg-type]
