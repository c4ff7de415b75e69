"""Small public generators: the networks as they were published, random weights, converted."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from attacks.generators.public import PUBLIC, convert
from fl_sim.core.errors import ConfigError, MissingDataError
from fl_sim.core.seeds import derive


def doubling(before: int, after: int) -> list[nn.Module]:
    return [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]


def dcgan(colours: int, cut: int) -> nn.Sequential:
    first = [nn.ConvTranspose2d(7, 16, 4, 1, 0, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    last = [nn.ConvTranspose2d(2, colours, 1, 1, cut, bias=False), nn.Tanh()]
    network = nn.Sequential(*first, *doubling(16, 8), *doubling(8, 4), *doubling(4, 2), *last)
    network(torch.randn(8, 7, 1, 1))  # moves the running statistics
    return network.eval()


@pytest.mark.parametrize(("colours", "cut", "side"), [(3, 0, 32), (1, 2, 28)])
@torch.no_grad()
def test_dcgan(colours: int, cut: int, side: int, tmp_path: Path) -> None:
    network = dcgan(colours, cut)
    path = tmp_path / "netG_epoch_199.pth"
    saved = {f"main.{name}": value for name, value in network.state_dict().items()}
    torch.save(saved, path, _use_new_zipfile_serialization=False)  # as the public ones are
    generator, _, _ = convert(str(path), "dcgan")
    assert generator.image_shape == (colours, side, side)
    state = generator.start(3, torch.zeros(3, 0), derive(0))
    expected = (network(state["latent"][:, :, None, None]) + 1) / 2
    assert torch.allclose(generator(state), expected, atol=1e-6)


@torch.no_grad()
def test_mlp(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 9), nn.Tanh())
    torch.save(network.state_dict(), path := tmp_path / "G--300.ckpt")
    generator, about, _ = convert(str(path), "mlp")
    assert about.data == "mnist"
    state = generator.start(3, torch.zeros(3, 0), derive(0))
    assert torch.allclose(generator(state).flatten(1), (network(state["latent"]) + 1) / 2)


@torch.no_grad()
def test_decoder(tmp_path: Path) -> None:
    layers = {"fc1": (9, 6), "fc21": (6, 2), "fc22": (6, 2), "fc3": (2, 6), "fc4": (6, 9)}
    vae = nn.ModuleDict({name: nn.Linear(a, b) for name, (a, b) in layers.items()})
    torch.save(vae.state_dict(), path := tmp_path / "vae_epoch_25.pth")
    generator, _, tensors = convert(str(path), "vae_decoder")
    assert sum(t.numel() for t in tensors.values()) == 2 * 6 + 6 + 6 * 9 + 9, "without the encoder"
    state = generator.start(3, torch.zeros(3, 0), derive(0))
    assert torch.allclose(generator(state).flatten(1), vae["fc4"](vae["fc3"](state["latent"]).relu()).sigmoid())


@pytest.mark.parametrize("kind", sorted(PUBLIC))
def test_a_file_that_is_not_there_has_a_name_and_a_place(kind: str, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"expected a file at .*download .* from https://"):
        convert(str(tmp_path / "none"), kind)


@pytest.mark.parametrize("kind", sorted(PUBLIC))
def test_another_file_is_refused(kind: str, tmp_path: Path) -> None:
    (text := tmp_path / "text").write_text("no")
    torch.save({"g_ema": {"x": torch.zeros(1)}, "x": torch.zeros(1)}, other := tmp_path / "other.pt")
    torch.save([1], listed := tmp_path / "list.pt")
    for path in (text, other, listed):
        with pytest.raises(ConfigError, match="expected"):
            convert(str(path), kind)


def test_a_square_of_pixels_is_expected(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 7)).state_dict(), path := tmp_path / "g.ckpt")
    with pytest.raises(ConfigError, match="square number of pixels, got 7"):
        convert(str(path), "mlp")


def test_kinds_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected one of .*stylegan2_ada.*, got 'gan'"):
        convert(str(tmp_path / "none"), "gan")


class Harmful:
    """Runs a command where it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("kind", sorted(PUBLIC))
def test_nothing_in_a_file_is_run(kind: str, tmp_path: Path) -> None:
    witness, harm = tmp_path / "witness", Harmful(f"touch {tmp_path}/witness")
    for new in (True, False):
        torch.save({"g_ema": harm, "x": harm}, path := tmp_path / "g.pt", _use_new_zipfile_serialization=new)
        with pytest.raises(ConfigError, match=r"nothing .*was run|expected a network pickled by|with a network"):
            convert(str(path), kind)
    assert not witness.exists()
