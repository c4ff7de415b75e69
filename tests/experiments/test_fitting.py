"""Fits of vectors whose distribution is known."""

import math
from typing import Literal

import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from attacks.priors.mixture import Components, log_density
from experiments.fitting import FLOOR, RIDGE, SHRINK, Autoencoder, Fit, Moments, fit_mixture, fit_vae, grid
from fl_sim.core.seeds import derive
from tests.attacks.priors.conftest import components

SMALL = Autoencoder(latents=2, hidden=16, epochs=12, step_size=1e-2)


def silent(_: str) -> None:
    """Nobody watches."""


def rings(number: int, seed: int = 0) -> Tensor:
    """A bump somewhere on a ring of 16 pixels, with noise of std 0.1: a curve, ``(n, 16)`` float64."""
    place = torch.rand(number, 1, generator=derive(seed, "place"), dtype=torch.float64) * 2 * math.pi
    angles = torch.linspace(0, 2 * math.pi, 17, dtype=torch.float64)[:16]
    noise = torch.randn(number, 16, generator=derive(seed, "noise"), dtype=torch.float64)
    return torch.exp(8 * torch.cos(angles - place) - 8) + 0.1 * noise


def drawn(mixture: Components, number: int, seed: int) -> Tensor:
    rng = derive(seed, "drawn")
    chosen = torch.multinomial(mixture.log_weights.exp(), number, replacement=True, generator=rng)
    white = torch.randn(number, 1, mixture.means.shape[1], generator=rng, dtype=torch.float64)
    found: Tensor = mixture.means[chosen] + (white @ torch.linalg.inv(mixture.factors[chosen]))[:, 0]
    return found


def exact(fit: Fit) -> Components:
    return Components(**{name: t.double() for name, t in fit.tensors.items()})


@pytest.mark.parametrize("number", [1, 3])
def test_a_mixture_is_found_again(number: int) -> None:
    """Held out, it is as good as the truth but for the price of its parameters."""
    truth = components(number, 4)
    truth = truth._replace(means=10 * truth.means)
    train, held = drawn(truth, 2000, 1), drawn(truth, 500, 2)
    fit = fit_mixture(train, held, number, 0, silent)
    assert fit.held.mean().item() == pytest.approx(log_density(held, truth).mean().item(), abs=0.1)
    assert fit.tensors["means"].dtype == torch.float32
    assert torch.allclose(log_density(held, exact(fit)), fit.held, atol=1e-3)
    assert torch.allclose(log_density(train, exact(fit)), fit.train, atol=1e-3)
    assert fit.options["components"] == number


def test_without_shrinking_the_moments_are_scikit_learns() -> None:
    vectors = rings(300)
    em = GaussianMixture(2, reg_covar=1e-3, random_state=0).fit(vectors.numpy())
    weights, means, covariances = map(torch.from_numpy, (em.weights_, em.means_, em.covariances_))
    unit = torch.eye(16, dtype=torch.float64)
    found = log_density(vectors, Moments(weights, means, covariances - 1e-3 * unit).regular(0.0, 1e-3))
    assert torch.allclose(found, torch.from_numpy(em.score_samples(vectors.numpy())), rtol=1e-9)


def test_fewer_vectors_than_pixels_are_enough_with_a_ridge() -> None:
    fit = fit_mixture(rings(10), rings(20, 1), 1, 0, silent)
    assert fit.options["ridge"] > RIDGE[0]
    assert bool(fit.held.isfinite().all())


def test_what_is_tried_is_told_and_the_best_of_it_is_taken() -> None:
    told: list[str] = []
    fit = fit_mixture(rings(100), rings(30, 1), 3, 0, told.append)
    assert len(told) == 1 + len(grid(3)) == 1 + len(SHRINK) * len(RIDGE)
    assert len(grid(1)) == len(RIDGE)
    best = max(fit.tried, key=lambda row: row["held_out_nats"])
    assert (best["shrink"], best["ridge"]) == (fit.options["shrink"], fit.options["ridge"])
    assert fit.held.mean().item() == pytest.approx(best["held_out_nats"])


@pytest.mark.parametrize("std", ["shared", "pixel", 0.2])
def test_training_a_vae_raises_the_bound_of_images_it_has_not_seen(std: Literal["shared", "pixel"] | float) -> None:
    about = Autoencoder(latents=2, hidden=16, epochs=12, step_size=1e-2, decoder_std=std)
    told: list[str] = []
    fit = fit_vae(rings(1000), rings(200, 1), about, 0, told.append)
    assert len(told) == 12
    assert fit.held.mean().item() > fit.tried[0]["held_out_nats"] + 1
    assert fit.held.mean().item() == max(row["held_out_nats"] for row in fit.tried)
    assert fit.options["best_epoch"] > 3
    stds = fit.tensors["log_std"].exp()
    assert len(stds) == (16 if std == "pixel" else 1)
    assert stds.min().item() == pytest.approx(0.2) if std == 0.2 else stds.min().item() >= FLOOR[0]


@pytest.mark.slow
def test_a_vae_is_better_than_one_gaussian_where_images_lie_on_a_surface() -> None:
    train, held = rings(2000), rings(300, 1)
    about = Autoencoder(latents=4, hidden=64, epochs=40, step_size=5e-3)
    gaussian, vae = fit_mixture(train, held, 1, 0, silent), fit_vae(train, held, about, 0, silent)
    assert vae.held.mean() > gaussian.held.mean()


def test_a_pixel_that_never_changes_gets_a_floor_for_the_image_where_it_does() -> None:
    train, held = rings(500), rings(100, 1)
    train[:, 0], held[:, 0] = 0, 0
    held[0, 0] = 1
    about = Autoencoder(latents=2, hidden=16, epochs=15, step_size=1e-2, decoder_std="pixel")
    fit = fit_vae(train, held, about, 0, silent)
    assert fit.options["floor"] > FLOOR[0]
    assert fit.tensors["log_std"][0].exp().item() == pytest.approx(fit.options["floor"])


def test_the_same_seed_gives_the_same_fit_and_leaves_global_generators_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (fit_vae(rings(200), rings(50, 1), SMALL, seed, silent) for seed in (0, 0, 1))
    assert all(torch.equal(t, same.tensors[name]) for name, t in one.tensors.items())
    assert not torch.equal(one.tensors["decoder.2.bias"], other.tensors["decoder.2.bias"])
    pair = [fit_mixture(rings(200), rings(50, 1), 2, 0, silent).tensors["means"] for _ in range(2)]
    assert torch.equal(*pair)
    assert torch.equal(torch.get_rng_state(), before)
