"""Priors in files, as ``fl-sim train-prior`` writes them, and the problem that all of these tests ask about."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attacks.priors.mixture import Components
from attacks.priors.stored import About, Kind
from attacks.priors.vae import Network
from attacks.problem import Problem
from fl_sim.core.seeds import derive
from fl_sim.core.types import Observation, Tensors
from fl_sim.runtime import files
from tests.conftest import TASK

PIXELS = 64


@pytest.fixture
def problem(seen: Observation, model: nn.Module) -> Problem:
    return Problem.of(seen, model, derive(0), "cpu")


def images(trials: int, number: int) -> Tensor:
    """``(T, N, 1, 8, 8)``, mostly but not all inside [0, 1]."""
    return torch.rand(trials, number, *TASK.image_shape, generator=derive(0, "images")) * 1.4 - 0.2


def components(number: int, size: int = PIXELS) -> Components:
    """Of different weights, means and covariances, in float64."""
    rng = derive(0, "components")
    spread = torch.randn(number, size, 2 * size, generator=rng, dtype=torch.float64) / size**0.5
    lower = torch.linalg.cholesky(spread @ spread.mT)
    return Components(
        torch.rand(number, generator=rng, dtype=torch.float64).log_softmax(0),
        torch.randn(number, size, generator=rng, dtype=torch.float64),
        torch.linalg.inv(lower).mT,
    )


def network() -> Network:
    """A small VAE that is not trained but whose bound is not loose everywhere either."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        made = Network(PIXELS, 2, 16, stds=PIXELS)
    made.log_std.data += torch.linspace(-0.5, 0.5, PIXELS)
    return made


def about(kind: Kind, shape: tuple[int, int, int] = TASK.image_shape) -> About:
    """Normalised as the shared task is."""
    return About(
        kind=kind,
        data="digits",
        origin="a test",
        split="test",
        image_shape=shape,
        mean=TASK.mean * shape[0],
        std=TASK.std * shape[0],
        images=9,
        held_out=1,
        seed=0,
        options={},
        figures={},
        versions={},
    )


def write(path: Path, tensors: Tensors, facts: About) -> str:
    files.write_tensors(path, tensors, asdict(facts))
    return str(path)


@pytest.fixture
def mixture_file(tmp_path: Path) -> str:
    tensors = {name: t.float() for name, t in components(3)._asdict().items()}
    return write(tmp_path / "mixture.safetensors", tensors, about("mixture"))


@pytest.fixture
def vae_file(tmp_path: Path) -> str:
    return write(tmp_path / "vae.safetensors", network().state_dict(), about("vae"))
