"""``fl-sim train-prior`` for generators, as a user meets it, and the one that is bundled."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from attacks.generators import About, about, classifier, load
from attacks.generators.stored import place
from experiments.generators import quality
from experiments.generators.making import Order, Public
from experiments.generators.training import Recipe
from fl_sim import data as data_sets
from fl_sim.core.errors import ConfigError
from fl_sim.core.seeds import derive
from fl_sim.data import Source
from tests.experiments.command import fl_sim

Capture = pytest.CaptureFixture[str]
SMALL = ("--data", "digits", "--split", "train", "--images", "150", "--latents", "4", "--width", "16")


@pytest.fixture(autouse=True)
def _rough_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "slow" not in request.keywords:
        monkeypatch.setattr(quality, "STEPS", 2)
        monkeypatch.setattr(quality, "_CLASSIFIER_STEPS", 10)


def train(monkeypatch: pytest.MonkeyPatch, out: Path, *arguments: str) -> int:
    return fl_sim(monkeypatch, "train-prior", "--out", str(out), *arguments)


def options(made: About) -> list[str]:
    """Of the command that made a file."""
    program, command, *given = shlex.split(made.made["command"])
    assert (program, command, given[-2]) == ("fl-sim", "train-prior", "--out")
    return given[:-2]


def weights(path: Path) -> list[bytes]:
    return [bytes(t.numpy().tobytes()) for t in load(str(path)).state_dict().values()]


@pytest.mark.parametrize(("kind", "architecture"), [("vaegan", "staged"), ("gan", "dcgan")])
def test_a_generator_of_digits_is_trained_and_drawn_from(
    kind: str, architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    path = tmp_path / "new" / "g.safetensors"
    order = ("--kind", kind, "--architecture", architecture, *SMALL, "--epochs", "1")
    assert train(monkeypatch, path, *order, "--json") == 0
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (said["architecture"], said["data"], said["bytes"]) == (architecture, "digits", path.stat().st_size)
    assert (said["made"]["split"], said["made"]["images"], said["made"]["held_out"]) == ("train", 135, 15)
    assert ("class_agreement" in said["figures"]) == (architecture == "staged")
    assert {"reach_psnr", "frechet"} <= set(said["figures"])
    assert sorted(p.name for p in path.parent.iterdir()) == ["g.checkpoint.safetensors", "g.png", "g.safetensors"]
    with Image.open(said["samples"]) as picture:
        assert picture.size == (540, 540)
    generator = load(str(path))
    images = generator(generator.start(2, torch.eye(10)[:2], derive(0)))
    assert images.shape == (2, 1, 8, 8)
    if generator.classes:
        assert classifier(str(path))(images).shape == (2, 10)
    else:
        with pytest.raises(ConfigError, match="has none"):
            classifier(str(path))


def test_more_epochs_go_on_from_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    order = ("--kind", "vaegan", *SMALL)
    assert train(monkeypatch, whole, *order, "--epochs", "2") == 0
    assert "150 images" not in (said := " ".join(capsys.readouterr().out.split()))
    assert "135 images of digits (train), 2 epochs" in said
    assert train(monkeypatch, parts, *order, "--epochs", "2", "--minutes", "1e-9") == 0
    assert about(str(parts)).made["epochs"] == 1
    assert train(monkeypatch, tmp_path / "again.safetensors", *options(about(str(parts)))) == 0
    assert weights(tmp_path / "again.safetensors") == weights(parts)
    assert train(monkeypatch, parts, *order, "--epochs", "2") == 0
    assert weights(parts) == weights(whole)
    assert train(monkeypatch, parts, *order, "--epochs", "1", "--fresh") == 0
    assert weights(parts) != weights(whole)


def test_a_checkpoint_of_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    path, order = tmp_path / "g.safetensors", ("--kind", "decoder", *SMALL, "--epochs", "1")
    assert train(monkeypatch, path, *order) == 0
    assert train(monkeypatch, path, *order, "--seed", "1") == 2
    assert "expected a checkpoint of seed 1, not 0" in " ".join(capsys.readouterr().err.split())


def test_too_few_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    order = ("--kind", "gan", "--data", "digits", "--split", "train[:10]")
    assert train(monkeypatch, tmp_path / "g.safetensors", *order) == 2
    assert "expected 20 images or more of digits (train[:10]), got 10" in " ".join(capsys.readouterr().err.split())


def test_the_bundled_generator_is_small_and_says_how_it_was_made() -> None:
    assert Path(place("digits")).stat().st_size < 600_000  # half of it is the classifier
    said = about("digits")
    assert (said.data, said.made["split"], said.made["seed"]) == ("digits", "train", 0)
    assert said.made["images"] + said.made["held_out"] == 1437
    assert said.figures["reach_psnr"] > 27
    assert said.figures["class_agreement"] > 0.9
    assert load("digits") is load(place("digits"))


@pytest.mark.slow
def test_the_bundled_generator_is_as_good_as_it_says() -> None:
    data, said = data_sets.load(Source(name="digits")), about("digits")
    recipe = Recipe(kind=said.made["kind"], latents=said.made["latents"], width=said.made["width"])
    order = Order(
        recipe=recipe, source=Source(name="digits"), split="train", images=None, epochs=1, minutes=None, out=Path()
    )
    public = Public.of(data, order)
    found = quality.figures(load("digits"), classifier("digits"), public.train, public.held, 0, lambda _: None)
    assert found["reach_psnr"] == pytest.approx(said.figures["reach_psnr"], abs=1)  # rounding grows in training
    assert found["class_agreement"] == pytest.approx(said.figures["class_agreement"], abs=0.05)
    assert found["frechet"] == pytest.approx(said.figures["frechet"], rel=0.5)
