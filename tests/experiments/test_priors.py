"""``fl-sim train-prior``, as a user meets it and as an attack reads its file."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from attacks.priors import PRIORS
from attacks.problem import Problem
from experiments.priors import bits_per_dim, public_vectors
from fl_sim.core.seeds import derive
from fl_sim.core.types import Observation
from fl_sim.data import Source, load
from tests.experiments.command import fl_sim

Capture = pytest.CaptureFixture[str]
SHORT = ("--epochs", "10", "--hidden", "32", "--latents", "2", "--components", "2")


def train(monkeypatch: pytest.MonkeyPatch, out: Path, *arguments: str) -> int:
    return fl_sim(monkeypatch, "train-prior", "--out", str(out), *arguments)


@pytest.fixture(params=["gaussian", "mixture", "vae"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_prior_of_digits_is_trained_and_used(
    kind: str,
    seen: Observation,
    model: torch.nn.Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    path = tmp_path / "new" / "prior.safetensors"
    assert train(monkeypatch, path, "--kind", kind, "--data", "digits", *SHORT, "--json") == 0
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (said["prior"], said["bytes"]) == (str(path), path.stat().st_size)
    assert (said["kind"], said["data"], said["split"], said["image_shape"]) == (kind, "digits", "test", [1, 8, 8])
    assert (said["images"], said["held_out"]) == (324, 36)
    assert said["figures"]["held_out_nats"] == max(row["held_out_nats"] for row in said["tried"])
    assert {"torch", "scikit-learn", "fl-sim", "python"} <= set(said["versions"])
    assert [file.name for file in path.parent.iterdir()] == [path.name]

    data = load(Source(name="digits"))
    prior = PRIORS["vae" if kind == "vae" else "mixture"](path=str(path))
    problem = Problem.of(seen, model, derive(0), "cpu")
    digits, noise = data.train.images[:20, None] / 255, torch.rand(20, 1, 1, 8, 8, generator=derive(0))
    assert prior(digits, problem).mean() < prior(noise, problem).mean()


def test_figures_are_printed_for_people(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    path = tmp_path / "prior.safetensors"
    assert train(monkeypatch, path, "--kind", kind, "--data", "digits", *SHORT, "--images", "100") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"{kind} of 90 images of digits (test)" in said
    assert "mean of 10 held-out images" in said
    assert "bits/dim" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "vea", "--data", "digits"], "'vea' is not one of"),
        (["--kind", "vae", "--data", "digit"], "did you mean 'digits'?"),
        (
            ["--kind", "vae", "--data", "digits", "--decoder-std", "0"],
            "expected shared, pixel or a number above 0, got '0'",
        ),
        (["--kind", "vae", "--data", "digits", "--decoder-std", "wide"], "got 'wide'"),
        (["--kind", "mixture", "--data", "digits", "--images", "20"], "expected at least 20 images to fit"),
        (["--kind", "gaussian", "--data", "digits", "--images", "2"], "and one to hold out, got 2 and 0"),
        (["--kind", "gaussian", "--data", "npz"], "set data.path"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert train(monkeypatch, tmp_path / "prior.safetensors", *arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_type_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "file").touch()
    for out, message in (
        (tmp_path / "prior.pt", "ends in .safetensors"),
        (tmp_path / "file" / "x.safetensors", "file"),
    ):
        assert train(monkeypatch, out, "--kind", "gaussian", "--data", "digits") == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_vectors_are_of_the_test_split_and_spread_over_their_grey_level() -> None:
    data = load(Source(name="digits"))
    vectors = torch.cat(public_vectors(data, "test", None, 0))
    levels = (vectors * data.std[0] + data.mean[0]) * 255
    found = sorted(map(tuple, levels.round().abs().tolist()))
    assert found == sorted(map(tuple, data.test.images.flatten(1).tolist()))
    offsets = levels - levels.round()
    assert offsets.std().item() == pytest.approx(1 / math.sqrt(12), rel=0.02)


def test_drawn_images_are_left_as_they_are() -> None:
    data = load(Source(name="dist_gaussian"))
    fitted, held = public_vectors(data, "test", 50, 3)
    assert (len(fitted), len(held)) == (45, 5)
    known = ((data.test.images.double() - 0.5) / data.std[0]).flatten(1)
    assert all((row - known).abs().max(1).values.min() < 1e-12 for row in torch.cat([fitted, held]))


def test_bits_per_dim_of_equally_likely_levels_are_eight() -> None:
    """A density that is even over all 255 steps between black and white has 1/255 a step: log2 255 bits."""
    data = load(Source(name="digits"))
    even = 64 * math.log(data.std[0])  # density 1 in [0, 1] units
    assert bits_per_dim(even, data) == pytest.approx(math.log2(255))
