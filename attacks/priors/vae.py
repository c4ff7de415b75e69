"""A small variational autoencoder of whole images, with a density that is one."""

import math
from functools import lru_cache
from typing import ClassVar

import torch
from pydantic import NonNegativeInt
from torch import Tensor, nn

from attacks.priors.stored import About, FittedPrior, Kind, current, read
from attacks.problem import Problem
from attacks.stored import Version
from fl_sim.core.part import part
from fl_sim.core.seeds import derive


class Network(nn.Module):
    """``z ~ N(0, I)``, ``x | z ~ N(decoder(z), std^2)``, and an encoder for ``z | x`` (arXiv 1312.6114).

    Vectors are normalised images. One hidden layer each way, SiLU: smooth, as attacks differentiate through it.

    Args:
        pixels: Entries of a vector, ``C*H*W``.
        latents: Entries of ``z``.
        hidden: Width of the hidden layers.
        stds: Of the decoder: 1, shared by all pixels, or ``pixels``, one each; kept as ``log_std``.
    """

    def __init__(self, pixels: int, latents: int, hidden: int, stds: int = 1) -> None:
        super().__init__()
        self.latents = latents
        self.encoder = nn.Sequential(nn.Linear(pixels, hidden), nn.SiLU(), nn.Linear(hidden, 2 * latents))
        self.decoder = nn.Sequential(nn.Linear(latents, hidden), nn.SiLU(), nn.Linear(hidden, pixels))
        self.log_std = nn.Parameter(torch.zeros(stds))

    def encode(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and std ``(M, L)`` of ``q(z | x)``; the latter grows linearly, so images far from any are safe."""
        mean, raw = self.encoder(vectors).chunk(2, dim=-1)
        return mean, nn.functional.softplus(raw) + 1e-4

    def log_likelihood(self, vectors: Tensor, latents: Tensor) -> Tensor:
        """``log p(x | z)`` in nats, ``(S, M)`` of ``vectors`` ``(M, d)`` and ``latents`` ``(S, M, L)``."""
        white: Tensor = (vectors - self.decoder(latents)) * (-self.log_std).exp()
        log_volume = self.log_std.expand(white.shape[-1]).sum() + white.shape[-1] / 2 * math.log(2 * math.pi)
        return -white.square().sum(-1) / 2 - log_volume

    def forward(self, vectors: Tensor, noise: Tensor) -> Tensor:
        """The evidence lower bound ``E_q log p(x | z) - KL(q || p)``, ``(M,)`` in nats.

        Estimated from ``noise`` ``(S, M or 1, L)``: if it is normal, without bias, and then at most ``log p(x)`` on
        average.
        """
        mean, std = self.encode(vectors)
        divergence = (mean.square() + std.square() - 1).sum(1) / 2 - std.log().sum(1)
        return self.log_likelihood(vectors, mean + std * noise).mean(0) - divergence


@part
class VAE(FittedPrior):
    """Minus the evidence lower bound of a VAE trained on public images: on average an upper bound on ``-log p(x)``.

    arXiv 2111.04706 trains one with binary cross-entropy on normalised pixels, which is no density; this decoder is
    Gaussian.

    Args:
        samples: Of the latent, for each image the same ``samples`` pairs of opposite normal noise, fixed by ``seed``:
            the cost is a smooth function of the images. 0: the encoder's mean alone, cheaper but no bound.
        seed: Of that noise.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("vae",)

    samples: NonNegativeInt = 4
    seed: int = 0

    def log_density(self, images: Tensor, problem: Problem) -> Tensor:
        del problem
        network, about = _loaded(current(self.path), str(images.device))
        half = torch.randn(self.samples, 1, network.latents, generator=derive(self.seed, "vae"))
        noise = torch.cat([half, -half]) if self.samples else torch.zeros(1, 1, network.latents)
        bound: Tensor = network(about.vectors(images), noise.to(images.device))
        return bound


@lru_cache(maxsize=4)
def _loaded(version: Version, device: str) -> tuple[Network, About]:
    tensors, about = read(version, VAE.kinds)
    hidden, latents = tensors["decoder.0.weight"].shape
    network = Network(math.prod(about.image_shape), latents, hidden, len(tensors["log_std"]))
    network.load_state_dict(dict(tensors))
    return network.to(device).requires_grad_(requires_grad=False), about
