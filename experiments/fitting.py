"""Priors fitted to vectors, that is to normalised images as rows. Held-out vectors choose what the fit leaves open."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

from attacks.priors.mixture import Components, log_density
from attacks.priors.vae import Network
from experiments.progress import Tick
from fl_sim.core.seeds import derive, derive_int
from fl_sim.core.types import Tensors
from fl_sim.training.local import single_threaded

Row: TypeAlias = dict[str, float]

SHRINK = (0.0, 0.05, 0.1, 0.2, 0.4)  # of each covariance towards the one that all components share
RIDGE = (1e-5, 1e-4, 3e-4, 1e-3, 1e-2, 1e-1)  # added to every variance, in squared normalised units
FLOOR = (0.003, 0.01, 0.03, 0.1, 0.3)  # under every learned std of a decoder, in normalised units

_EM_RIDGE, _EM_GAIN, _EM_STEPS = 1e-3, 0.1, 50  # variance; nats a vector that a step must gain; most steps
_BATCH = (16, 128)  # least and most; between, a fiftieth of the vectors
_SAMPLES = 8  # of the latent, for the held-out bound
_ROWS = 10  # epochs that are told of
_CHUNK = 128  # vectors at once, where figures are computed


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A fitted prior.

    Args:
        tensors: As the prior's part reads them.
        options: What was given and what was chosen.
        train: ``log p`` (a VAE: its lower bound) of each vector fitted to, ``(n,)`` in nats.
        held: The same of the held-out ones, ``(m,)``, which chose: a little optimistic.
        tried: What was compared, as rows of equal keys.
    """

    tensors: Tensors
    options: Mapping[str, Any]
    train: Tensor
    held: Tensor
    tried: list[Row]


class Moments(NamedTuple):
    """Of a mixture of K Gaussians over vectors of d entries, in float64."""

    weights: Tensor  # (K,)
    means: Tensor  # (K, d)
    covariances: Tensor  # (K, d, d), perhaps singular

    def regular(self, shrink: float, ridge: float) -> Components:
        """Covariances part of the way to their weighted mean, and ``ridge`` added to every variance."""
        shared = torch.einsum("k,kij->ij", self.weights, self.covariances)
        unit = torch.eye(len(shared), dtype=shared.dtype)
        lower = torch.linalg.cholesky((1 - shrink) * self.covariances + shrink * shared + ridge * unit)
        inverse = torch.linalg.solve_triangular(lower, unit.expand_as(lower), upper=False)
        return Components(self.weights.log(), self.means, inverse.mT)


def grid(components: int) -> list[tuple[float, float]]:
    """Shrinkage and ridge of each try; one component has nothing to shrink to."""
    return list(product(SHRINK if components > 1 else SHRINK[:1], RIDGE))


def fit_mixture(train: Tensor, held: Tensor, components: int, seed: int, tick: Tick) -> Fit:
    """Full covariances by scikit-learn's EM, then shrunk and ridged as held-out vectors like best.

    Args:
        train: ``(n, d)`` float64; n may be below d.
        held: ``(m, d)`` float64.
        tick: Called once, and once for each point of the grid.
    """
    moments = _em(train, components, seed)
    tick(f"EM, components: {components}")
    rows = list[Row]()
    for shrink, ridge in grid(components):
        nats = _nats(held, moments.regular(shrink, ridge)).mean().item()
        rows.append({"shrink": shrink, "ridge": ridge, "held_out_nats": nats})
        tick(f"shrink {shrink:g}, ridge {ridge:g}: {nats:.1f} nats held out")
    best = max(rows, key=lambda row: row["held_out_nats"])
    chosen = moments.regular(best["shrink"], best["ridge"])
    return Fit(
        tensors={name: t.float() for name, t in chosen._asdict().items()},
        options={"components": components, "shrink": best["shrink"], "ridge": best["ridge"]},
        train=_nats(train, chosen),
        held=_nats(held, chosen),
        tried=rows,
    )


def _em(train: Tensor, components: int, seed: int) -> Moments:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    em = GaussianMixture(
        components, reg_covar=_EM_RIDGE, tol=_EM_GAIN, max_iter=_EM_STEPS, random_state=derive_int(seed, "em") % 2**32
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the held-out figures tell how good it is
        em.fit(train.numpy())
    weights, means, covariances = map(torch.from_numpy, (em.weights_, em.means_, em.covariances_))
    return Moments(weights, means, covariances - _EM_RIDGE * torch.eye(train.shape[1], dtype=train.dtype))


def _nats(vectors: Tensor, mixture: Components) -> Tensor:
    return torch.cat([log_density(part, mixture) for part in torch.split(vectors, _CHUNK)])


@dataclass(frozen=True, kw_only=True)
class Autoencoder:
    """What a VAE is like, and how long it is trained, by Adam.

    Args:
        decoder_std: ``shared``: one learned for all pixels; ``pixel``: one learned for each; or that one, fixed, in
            normalised units. One for each gives a much higher bound, in which pixels that hardly ever change count
            most, and a prior too stiff to descend. Learned ones get a floor: such a pixel may change in the next image.
    """

    latents: int = 20
    hidden: int = 500
    decoder_std: Literal["shared", "pixel"] | float = "shared"
    epochs: int = 50
    step_size: float = 1e-3

    def network(self, pixels: int, seed: int) -> Network:
        """Untrained; its weights are a function of ``seed``."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_int(seed, "vae"))
            network = Network(pixels, self.latents, self.hidden, pixels if self.decoder_std == "pixel" else 1)
        if isinstance(self.decoder_std, float):
            network.log_std = nn.Parameter(torch.full((1,), math.log(self.decoder_std)), requires_grad=False)
        return network

    def optimiser(self, network: Network) -> torch.optim.Optimizer:
        """Stds take larger steps: they have far to go from 1."""
        weights = [*network.encoder.parameters(), *network.decoder.parameters()]
        groups: list[dict[str, Any]] = [
            {"params": weights, "lr": self.step_size},
            {"params": [network.log_std], "lr": 10 * self.step_size},
        ]
        return torch.optim.Adam(groups)


class Snapshot(NamedTuple):
    """A VAE after an epoch, with the floor under its stds that suits held-out vectors best."""

    epoch: int
    floor: float
    held: Tensor  # (m,), the bounds

    def row(self) -> Row:
        return {"epoch": self.epoch, "floor": self.floor, "held_out_nats": self.held.mean().item()}


def fit_vae(train: Tensor, held: Tensor, about: Autoencoder, seed: int, tick: Tick) -> Fit:
    """A VAE of vectors ``(n, d)``, as it was after the epoch that held-out vectors ``(m, d)`` like best.

    Args:
        tick: Called once for each epoch.
    """
    train, held, rng = train.float(), held.float(), derive(seed, "vae", "train")
    network, seen = about.network(train.shape[1], seed), list[Snapshot]()
    optimiser, kept = about.optimiser(network), dict[str, Tensor]()
    with single_threaded():
        for epoch in range(1, about.epochs + 1):
            _pass(network, optimiser, train, rng)
            seen.append(_snapshot(network, held, about, seed, epoch))
            tick(f"epoch {epoch}: {seen[-1].held.mean():.1f} nats held out")
            if seen[-1] is (best := max(seen, key=lambda s: s.held.mean().item())):
                kept = {name: t.clone() for name, t in network.state_dict().items()}
        kept["log_std"] = kept["log_std"].clamp_min(math.log(best.floor))
        network.load_state_dict(kept)
        bounds = _bounds(network, train, seed, best.floor)
    every = max(1, about.epochs // _ROWS)
    return Fit(
        tensors=kept,
        options={**asdict(about), "best_epoch": best.epoch, "floor": best.floor},
        train=bounds,
        held=best.held,
        tried=[s.row() for s in seen if s is best or s.epoch % every == 0],
    )


def _snapshot(network: Network, held: Tensor, about: Autoencoder, seed: int, epoch: int) -> Snapshot:
    floors = (about.decoder_std,) if isinstance(about.decoder_std, float) else FLOOR
    tried = [Snapshot(epoch, floor, _bounds(network, held, seed, floor)) for floor in floors]
    return max(tried, key=lambda s: s.held.mean().item())


def _pass(network: Network, optimiser: torch.optim.Optimizer, vectors: Tensor, rng: Generator) -> None:
    """One epoch, in batches of a new order."""
    size = min(max(_BATCH[0], len(vectors) // 50), _BATCH[1])
    for chosen in torch.split(torch.randperm(len(vectors), generator=rng), size):
        noise = torch.randn(1, len(chosen), network.latents, generator=rng)
        loss = -network(vectors[chosen], noise).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def _bounds(network: Network, vectors: Tensor, seed: int, floor: float) -> Tensor:
    """Of each vector, ``(n,)``, under stds of at least ``floor``; with the same noise for every one and every call."""
    noise = torch.randn(_SAMPLES, 1, network.latents, generator=derive(seed, "vae", "held out"))
    log_std = network.log_std.detach().clamp_min(math.log(floor))
    with torch.no_grad():
        parts = [functional_call(network, {"log_std": log_std}, (part, noise)) for part in torch.split(vectors, _CHUNK)]
    return torch.cat(parts)
