import os
from pathlib import Path

import lpips
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fl_sim.core.errors import FlSimError
from fl_sim.core.seeds import derive
from fl_sim.metrics import perceptual
from fl_sim.metrics.perceptual import Lpips, Unavailable

DATA = os.environ.get("FL_SIM_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="FL_SIM_DATA is not set: no LPIPS weights")


@pytest.fixture(scope="module")
def distance() -> Lpips:
    loaded = Lpips.load()
    assert isinstance(loaded, Lpips)
    return loaded


def foreign(guess: Tensor, truth: Tensor) -> Tensor:
    """lpips itself, its trunk filled by torch's own strict loading; inputs in [-1, 1]."""
    with pytest.warns(UserWarning, match="pretrained|weights"):
        net = lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False)
    trunk = torch.load(Path(DATA or "") / "weights" / "squeezenet1_1_features.pth", weights_only=True)
    for layers in net.net.children():
        layers.load_state_dict({name: trunk["features." + name] for name in layers.state_dict()})
    values: Tensor = net(guess, truth).flatten().detach()
    return values


@needs_data
def test_known_answer_of_the_weights(distance: Lpips) -> None:
    rng = torch.Generator().manual_seed(42)
    first, second = (torch.rand(2, 3, 100, 100, generator=rng) for _ in range(2))
    assert distance(first, second).tolist() == pytest.approx([0.1024, 0.0938], abs=5e-5)


@needs_data
def test_small_grey_images_are_what_the_settings_say(distance: Lpips) -> None:
    first, second = torch.rand(2, 3, 1, 8, 16, generator=derive(0))
    scaled = [
        functional.interpolate(x.repeat(1, 3, 1, 1), size=(64, 128), mode="bilinear") * 2 - 1 for x in (first, second)
    ]
    torch.testing.assert_close(distance(first, second), foreign(scaled[0], scaled[1]))


@needs_data
def test_equal_images_are_at_zero_and_more_noise_is_further(distance: Lpips) -> None:
    image = torch.rand(1, 3, 32, 32, generator=derive(1))
    noise = torch.randn(1, 3, 32, 32, generator=derive(2))
    near, far = ((image + std * noise).clamp(0, 1) for std in (0.05, 0.3))
    same, little, much = (distance(x, image).item() for x in (image, near, far))
    assert same == pytest.approx(0, abs=1e-7)
    assert same < little < much


@needs_data
def test_loading_is_quiet_and_leaves_the_global_generator(capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.random.get_rng_state()
    assert isinstance(Lpips.load(Path(DATA or "")), Lpips)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert capsys.readouterr() == ("", "")


def unreachable(*_: object, **__: object) -> None:
    raise TimeoutError("timed out")


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No data folder, no network, an empty cache; returns the cache."""
    monkeypatch.delenv("FL_SIM_DATA", raising=False)
    monkeypatch.setenv("FL_SIM_CACHE", str(tmp_path))
    monkeypatch.setattr(perceptual, "urlopen", unreachable)
    return tmp_path


def test_without_weights_the_reason_is_given(offline: Path) -> None:
    found = Lpips.load()
    assert isinstance(found, Unavailable)
    assert "timed out" in found.reason
    assert str(offline) in found.reason


def test_a_damaged_file_is_a_reason_too(offline: Path) -> None:
    (offline / "squeezenet1_1-b8a52dc0.pth").write_bytes(b"half a file")
    found = Lpips.load()
    assert isinstance(found, Unavailable)
    assert "cannot be read" in found.reason


def test_other_weights_are_a_reason_too(offline: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(1)}, offline / "squeezenet1_1-b8a52dc0.pth")
    found = Lpips.load()
    assert isinstance(found, Unavailable)
    assert "does not hold" in found.reason


@needs_data
def test_the_cache_serves_where_there_is_no_data_folder(offline: Path) -> None:
    weights = Path(DATA or "") / "weights" / "squeezenet1_1_features.pth"
    (offline / "squeezenet1_1-b8a52dc0.pth").write_bytes(weights.read_bytes())
    assert isinstance(Lpips.load(), Lpips)


def test_a_download_with_the_wrong_content_is_not_kept(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (offline / "impostor").write_bytes(b"not the weights")
    monkeypatch.setattr(perceptual, "urlopen", lambda *_, **__: (offline / "impostor").open("rb"))
    found = Lpips.load()
    assert isinstance(found, Unavailable)
    assert "sha256" in found.reason
    assert [path.name for path in offline.iterdir()] == ["impostor"]


def test_a_fitting_download_is_kept(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (offline / "served").write_bytes(b"whatever the prefix accepts")
    monkeypatch.setattr(perceptual, "urlopen", lambda *_, **__: (offline / "served").open("rb"))
    monkeypatch.setattr(perceptual, "_SHA256_PREFIX", "")
    Lpips.load()
    assert (offline / "squeezenet1_1-b8a52dc0.pth").read_bytes() == b"whatever the prefix accepts"


@needs_data
def test_two_channels_are_refused(distance: Lpips) -> None:
    with pytest.raises(FlSimError, match="2 channels"):
        distance(torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8))
