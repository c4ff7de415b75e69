"""Generators in files."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from attacks.generators import about, load
from attacks.generators.mlp import MLP
from fl_sim.core.errors import ConfigError, MissingDataError
from fl_sim.core.seeds import derive

OPTIONS = {"image_shape": [1, 6, 6], "widths": [5, 9]}
ABOUT = {"architecture": "mlp", "options": OPTIONS, "data": "none", "origin": "a test", "figures": {}, "made": {}}


def written(path: Path, **other: object) -> str:
    network = MLP((1, 6, 6), (5, 9))
    save_file(network.state_dict(), path, {"about": json.dumps({**ABOUT, **other})})
    return str(path)


def test_it_comes_back_fixed_and_in_eval_mode(tmp_path: Path) -> None:
    path = written(tmp_path / "g.safetensors")
    network = load(path)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert network(network.start(2, torch.zeros(2, 0), derive(0))).shape == (2, 1, 6, 6)
    assert about(path).architecture == "mlp"


def test_a_file_written_again_is_read_again(tmp_path: Path) -> None:
    first = load(path := written(tmp_path / "g.safetensors"))
    assert load(path) is first
    os.utime(path, ns=(0, 0))  # two writes may fall into one tick of the clock
    assert load(path) is not first


def test_what_is_no_generator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="train-prior"):
        load(str(tmp_path / "none.safetensors"))
    (text := tmp_path / "text.safetensors").write_text("no")
    with pytest.raises(ConfigError, match="expected a generator"):
        load(str(text))
    with pytest.raises(ConfigError, match="expected one of"):
        load(written(tmp_path / "a.safetensors", architecture="diffusion"))
    with pytest.raises(ConfigError, match="does not fit"):
        load(written(tmp_path / "b.safetensors", options={**OPTIONS, "widths": [5, 8]}))


def test_options_that_are_none_of_the_architectures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not fit the architecture mlp: .*unexpected keyword"):
        load(written(tmp_path / "a.safetensors", options={**OPTIONS, "depth": 3}))
    with pytest.raises(ConfigError, match="biggan_deep: expected resolution 128, 256 or 512, got 64"):
        load(written(tmp_path / "b.safetensors", architecture="biggan_deep", options={"resolution": 64}))


def test_loading_draws_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "g.safetensors")
    before = torch.get_rng_state()
    assert load(path).image_shape == (1, 6, 6)
    assert torch.equal(torch.get_rng_state(), before)
