"""``fl-sim convert-generator``, as a user meets it."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from attacks.generators import load
from tests.experiments.command import fl_sim

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def public(tmp_path: Path) -> str:
    torch.save(nn.Sequential(nn.Linear(3, 16), nn.Tanh()).state_dict(), path := tmp_path / "G--300.ckpt")
    return str(path)


def test_a_public_file_becomes_ours(
    public: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    out, picture = tmp_path / "new" / "g.safetensors", tmp_path / "pictures" / "g.png"
    arguments = (public, "--kind", "mlp", "--out", str(out), "--samples", str(picture), "--data", "mine")
    assert fl_sim(monkeypatch, "convert-generator", *arguments, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["generator"], said["architecture"], said["data"]) == (str(out), "mlp", "mine")
    assert (said["parameters"], said["stages"]) == (64, [{"stage": 0, "searched": {"latent": [3]}}])
    assert len(said["made"]["sha256"]) == 64
    assert load(str(out)).image_shape == (1, 4, 4)
    with Image.open(picture) as shown:
        assert (shown.size, shown.mode) == ((32, 32), "L")
        assert len(set(shown.tobytes())) > 10
    assert fl_sim(monkeypatch, "convert-generator", *arguments) == 0
    assert "64 parameters in 1 stages" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--kind": "gan"}, "expected one of biggan_deep_128"),
        ({"--kind": "dcgan"}, "choose another kind"),
        ({"--out": "g.pt"}, "ends in .safetensors"),
        ({"--samples": "g.jpg"}, "ends in .png"),
        ({"--codes": "each"}, "expected a StyleGAN2"),
    ],
)
def test_what_cannot_be_converted_is_refused(
    changed: dict[str, str], message: str, public: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    options = {"--kind": "mlp", "--out": str(tmp_path / "g.safetensors"), **changed}
    assert fl_sim(monkeypatch, "convert-generator", public, *(word for pair in options.items() for word in pair)) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "g.safetensors").exists()


def test_a_missing_public_file_has_a_name_and_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    arguments = (str(tmp_path / "none"), "--kind", "biggan_deep_256", "--out", str(tmp_path / "g.safetensors"))
    assert fl_sim(monkeypatch, "convert-generator", *arguments) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "download biggan-deep-256-pytorch_model.bin from https://" in said
