import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from attacks.priors import VAE
from attacks.problem import Problem
from fl_sim.core.seeds import derive
from tests.attacks.priors.conftest import PIXELS, images, network
from tests.conftest import TASK


def vectors(number: int) -> Tensor:
    return ((images(1, number)[0] - TASK.mean[0]) / TASK.std[0]).flatten(1)


def test_the_bound_agrees_with_torchs_distributions() -> None:
    net, x, noise = network(), vectors(5), torch.randn(7, 1, 2, generator=derive(1))
    posterior = Normal(*net.encode(x))
    decoded = Normal(net.decoder(posterior.mean + posterior.stddev * noise), net.log_std.exp())
    likelihood = decoded.log_prob(x).sum(-1).mean(0)  # type: ignore[no-untyped-call]
    divergence = kl_divergence(posterior, Normal(torch.zeros(2), torch.ones(2))).sum(1)
    assert torch.allclose(net(x, noise), likelihood - divergence, rtol=1e-5)


def test_the_bound_is_a_bound() -> None:
    """Against ``log p(x)`` by importance sampling from the encoder, and by plain sampling from the prior."""
    net, x, draws = network(), vectors(4), 50_000
    with torch.no_grad():
        bound = net(x, torch.randn(10_000, 1, 2, generator=derive(1)))
        mean, std = net.encode(x)
        wide = Normal(mean, 3 * std + 1)
        z = wide.mean + wide.stddev * torch.randn(draws, 1, 2, generator=derive(2))
        weights = net.log_likelihood(x, z) + (Normal(0.0, 1.0).log_prob(z) - wide.log_prob(z)).sum(-1)  # type: ignore[no-untyped-call]
        exact = torch.logsumexp(weights, 0) - torch.tensor(draws).log()
        plain = torch.randn(draws, 1, 2, generator=derive(3)).expand(-1, 4, -1)
        also = torch.logsumexp(net.log_likelihood(x, plain), 0) - torch.tensor(draws).log()
    assert torch.allclose(exact, also, atol=0.1)
    assert bool((bound < exact + 0.02).all())
    assert (exact - bound).max() > 0.1  # an untrained encoder is not the posterior


def test_the_cost_is_the_bound_at_fixed_noise(problem: Problem, vae_file: str) -> None:
    prior, pixels = VAE(path=vae_file, samples=500), images(1, 3)
    net = network()
    with torch.no_grad():
        expected = -net(vectors(3), torch.randn(20_000, 1, 2, generator=derive(1))).sum()
    assert prior(pixels, problem).item() == pytest.approx(expected.item(), rel=0.02)
    assert torch.equal(prior(pixels, problem), prior(pixels, problem))
    assert not torch.equal(VAE(path=vae_file, samples=500, seed=1)(pixels, problem), prior(pixels, problem))


def test_without_samples_the_latent_is_the_encoders_mean(problem: Problem, vae_file: str) -> None:
    net, x = network(), vectors(3)
    with torch.no_grad():
        expected = -net(x, torch.zeros(1, 1, 2)).sum()
    assert VAE(path=vae_file, samples=0)(images(1, 3), problem).item() == pytest.approx(expected.item(), rel=1e-5)


def test_one_std_for_all_pixels_is_the_same_for_each() -> None:
    each, shared = network(), network()
    each.log_std.data = torch.full((PIXELS,), 0.3)
    shared.log_std = torch.nn.Parameter(torch.tensor([0.3]))
    noise = torch.randn(3, 1, 2, generator=derive(1))
    assert torch.allclose(each(vectors(2), noise), shared(vectors(2), noise))
