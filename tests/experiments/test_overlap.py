"""Priors that have seen what they are to reconstruct."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from experiments.build import cells
from experiments.config import load_dict
from experiments.overlap import refuse_overlap
from experiments.parts import AttackPart
from fl_sim.core.errors import ConfigError

ORIGIN = "sklearn.datasets.load_digits"


def refuse(path: Path | str, split: str, data: str = "digits") -> None:
    (cell,) = cells(load_dict({"name": "overlap", "data": {"name": data, "split": split}}, "test"))
    refuse_overlap(cell, AttackPart(name="any", priors=[{"name": "vae", "path": str(path)}]), None)


@pytest.fixture(params=["prior", "generator"])
def fitted(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """To the first training digits."""
    split = {"split": "train[:100]"}
    about = {"data": "digits", "origin": ORIGIN, **(split if request.param == "prior" else {"made": split})}
    save_file({"w": torch.zeros(1)}, path := tmp_path / "f.safetensors", {"about": json.dumps(about)})
    return path


def test_images_that_clients_hold_are_refused(fitted: Path) -> None:
    with pytest.raises(ConfigError, match=r'fitted to digits \(train\[:100\]\): set data.split = "test"'):
        refuse(fitted, "train")
    refuse(fitted, "test")


def test_other_files_say_nothing(tmp_path: Path) -> None:
    (text := tmp_path / "notes.txt").write_text("train")
    save_file({"w": torch.zeros(1)}, other := tmp_path / "o.safetensors", {"about": json.dumps({"data": "mnist"})})
    for path in (text, other, tmp_path / "none"):
        refuse(path, "train")


@pytest.mark.skipif(not os.environ.get("FL_SIM_DATA"), reason="FL_SIM_DATA is not set: no MNIST")
def test_another_domain_shows_the_same_images(tmp_path: Path) -> None:
    about = {"data": "mnist", "origin": "MNIST", "made": {"split": "train[:50000]"}}
    save_file({"w": torch.zeros(1)}, path := tmp_path / "g.safetensors", {"about": json.dumps(about)})
    with pytest.raises(ConfigError, match=r"fitted to mnist \(train"):
        refuse(path, "train", "mnist_renamed")
    refuse(path, "test", "mnist_renamed")
