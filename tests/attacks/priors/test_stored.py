import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attacks.priors import VAE, FittedMixture, Prior
from attacks.problem import Problem
from fl_sim.core.errors import ConfigError, MissingDataError
from fl_sim.runtime import files
from tests.attacks.priors.conftest import about, components, images, network, write


def tensors(number: int = 1, size: int = 64) -> dict[str, Tensor]:
    return {name: t.float() for name, t in components(number, size)._asdict().items()}


@pytest.mark.parametrize("prior", [FittedMixture, VAE])
def test_a_file_that_is_not_there_says_how_to_make_one(prior: type[Prior], problem: Problem, tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"
    with pytest.raises(MissingDataError, match=r"none\.safetensors.*No such file.*fl-sim train-prior --kind .* --out"):
        prior(path=str(path))(images(1, 1), problem)  # type: ignore[call-arg]


def test_a_prior_of_another_shape_is_refused(problem: Problem, tmp_path: Path) -> None:
    wide, colour = (1, 8, 16), (3, 8, 8)
    mixture = write(tmp_path / "mixture.safetensors", tensors(size=128), about("gaussian", wide))
    vae = write(tmp_path / "vae.safetensors", network().state_dict(), about("vae", (1, 4, 16)))
    deep = write(tmp_path / "deep.safetensors", tensors(size=192), about("mixture", colour))
    for prior, shape in (
        (FittedMixture(path=mixture), r"\(1, 8, 16\)"),
        (VAE(path=vae), r"\(1, 4, 16\)"),
        (FittedMixture(path=deep), r"\(3, 8, 8\)"),
    ):
        with pytest.raises(ConfigError, match=rf"\(1, 8, 8\), got one of {shape} \(data set digits\).*train-prior"):
            prior.check(problem.seen, problem.model)


def test_a_prior_of_another_kind_is_refused(problem: Problem, mixture_file: str, vae_file: str) -> None:
    with pytest.raises(ConfigError, match="kind gaussian or mixture, got vae"):
        FittedMixture(path=vae_file)(images(1, 1), problem)
    with pytest.raises(ConfigError, match="kind vae, got mixture"):
        VAE(path=mixture_file)(images(1, 1), problem)


def test_anything_else_is_refused(problem: Problem, tmp_path: Path) -> None:
    noise, other = tmp_path / "noise.safetensors", tmp_path / "other.safetensors"
    noise.write_bytes(b"not tensors at all")
    files.write_tensors(other, {"x": torch.zeros(1)}, {"kind": "observation"})
    for path in (noise, other, tmp_path):
        with pytest.raises(ConfigError, match="expected a prior made by `fl-sim train-prior`"):
            FittedMixture(path=str(path))(images(1, 1), problem)


def test_a_file_that_was_written_again_is_read_again(problem: Problem, tmp_path: Path) -> None:
    path = tmp_path / "mixture.safetensors"
    prior = FittedMixture(path=write(path, tensors(1), about("mixture")))
    before = prior(images(1, 1), problem)
    write(path, tensors(2), about("mixture"))
    os.utime(path, ns=(1, 1))  # however coarse the clock
    assert not torch.equal(prior(images(1, 1), problem), before)
