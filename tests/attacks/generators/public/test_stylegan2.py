"""StyleGAN2 in its two public layouts: random weights, converted, against the definition."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import leaky_relu

from attacks.generators.public import convert
from attacks.generators.public.keys import Keys
from attacks.generators.public.stylegan2 import ada as read_ada
from attacks.generators.stored import built
from attacks.generators.stylegan2 import StyleGAN2
from fl_sim.core.errors import ConfigError
from fl_sim.core.seeds import derive
from tests.attacks.generators.public.styles import LATENTS, STYLES, WIDTHS, ada, reference, rosinality


@pytest.fixture
def path(tmp_path: Path) -> str:
    torch.save(
        {"g_ema": rosinality(), "latent_avg": torch.zeros(STYLES)}, file := tmp_path / "stylegan2-ffhq-config-f.pt"
    )
    return str(file)


def test_a_converted_file_makes_the_images_of_the_public_one(path: str) -> None:
    generator, about, _ = convert(path, "stylegan2")
    assert about.options["image_shape"] == (3, 16, 16)
    assert about.options["channels"] == list(WIDTHS)
    state = generator.start(2, torch.zeros(2, 0), derive(0))
    state = {**state, "styles": torch.randn(2, 6, STYLES, generator=derive(1))}
    painted = generator.run(state, 0, generator.depth)["skip"]
    for row in range(2):
        noise = [state[f"noise.{i}"][row : row + 1].double() for i in range(5)]
        expected = reference(rosinality(), state["styles"][row].double(), noise)
        assert torch.allclose(painted[row : row + 1].double(), expected, atol=1e-4)
    assert torch.equal(generator(state), ((painted + 1) / 2).clamp(0, 1))


def test_older_files_without_noise_and_filters_are_read(path: str, tmp_path: Path) -> None:
    parts = {
        name: value for name, value in rosinality().items() if not name.startswith("noises") and "kernel" not in name
    }
    torch.save({"g_ema": parts}, file := tmp_path / "older.pt")
    first, second = (convert(name, "stylegan2")[2] for name in (path, str(file)))
    assert sorted(first) == sorted(second)


def test_both_layouts_are_one_network(path: str) -> None:
    first, _, _ = convert(path, "stylegan2")
    made = read_ada(keys := Keys(ada(rosinality()), "a test"))
    keys.end()
    second = built(made.architecture, made.options, made.tensors, "a test")
    state = [network.start(2, torch.zeros(2, 0), derive(0)) for network in (first, second)]
    assert torch.equal(first(state[0]), second(state[1]))


def test_ada_with_classes() -> None:
    saved = ada(rosinality(), classes=4)
    made = read_ada(keys := Keys(saved, "a test"))
    keys.end()
    assert (made.options["classes"], made.options["latents"]) == (4, LATENTS)
    network = built(made.architecture, made.options, made.tensors, "a test")
    assert isinstance(network, StyleGAN2)
    latent, weights = torch.randn(1, LATENTS, generator=derive(0)), torch.tensor([[0.0, 0, 0.3, 0.7]])
    embedded = weights @ saved["mapping.embed.weight"].T / 2 + saved["mapping.embed.bias"]
    given = torch.cat([v / v.square().mean().sqrt() for v in (latent, embedded)], 1)
    for i in range(2):
        weight, bias = (saved[f"mapping.fc{i}.{name}"] * 0.01 for name in ("weight", "bias"))
        given = leaky_relu(given @ weight.T / given.shape[1] ** 0.5 + bias, 0.2) * 2**0.5
    assert torch.allclose(network.styled(latent, weights), given, atol=1e-5)


def test_starts_can_be_drawn_from_a_gaussian_of_styles(path: str) -> None:
    generator, about, tensors = convert(path, "stylegan2", codes="gaussian")
    assert about.options["codes"] == "gaussian"
    assert isinstance(generator, StyleGAN2)
    styles = generator.styled(torch.randn(4000, LATENTS, generator=derive(5)), torch.zeros(4000, 0))
    drawn = generator.start(1000, torch.zeros(1000, 0), derive(6))["styles"].flatten(0, 1)
    assert tensors["fit_mean"].shape == (STYLES,)
    before, after = leaky_relu(styles, 5.0), leaky_relu(drawn, 5.0)
    assert torch.allclose(before.mean(0), after.mean(0), atol=0.2 * float(before.std(0).max()))
    assert torch.allclose(before.std(0), after.std(0), rtol=0.2)


def test_other_networks_are_refused(path: str, tmp_path: Path) -> None:
    saved = rosinality()
    torch.save({"g_ema": {**saved, "convs.0.conv.blur.kernel": torch.ones(4, 4)}}, file := tmp_path / "x.pt")
    with pytest.raises(ConfigError, match=r"convs.0.conv.blur.kernel: expected the filter \[1, 3, 3, 1\]"):
        convert(str(file), "stylegan2")
    torch.save({"g": saved}, file)
    with pytest.raises(ConfigError, match="expected a dictionary with `g_ema`"):
        convert(str(file), "stylegan2")
    torch.save({"g_ema": {**saved, "to_rgbs.7.bias": torch.zeros(3)}}, file)
    with pytest.raises(ConfigError, match=r"got 1 more \(to_rgbs.7.bias\)"):
        convert(str(file), "stylegan2")
    renamed = {name: value for name, value in ada(saved).items() if not name.startswith("synthesis.b8.torgb")}
    with pytest.raises(ConfigError, match=r"expected a tensor 'synthesis.b8.torgb.weight'"):
        read_ada(Keys(renamed, "of architecture orig"))


def test_codes_are_of_networks_that_have_styles(path: str, tmp_path: Path) -> None:
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 4)).state_dict(), file := tmp_path / "g.ckpt")
    with pytest.raises(ConfigError, match="--codes: expected a StyleGAN2, got the kind mlp"):
        convert(str(file), "mlp", codes="each")
