"""Training a generator: what it depends on, and what it goes on from."""

from itertools import pairwise
from typing import get_args

import pytest
import torch

from experiments.generators.training import Architecture, Kind, Recipe, Training
from fl_sim.core.errors import ConfigError
from fl_sim.core.seeds import derive
from fl_sim.data import Split

IMAGES = Split(
    torch.randint(0, 256, (130, 1, 8, 8), dtype=torch.uint8, generator=derive(0, "images")),
    torch.randint(0, 3, (130,), generator=derive(0, "labels")),
)


def started(kind: Kind, architecture: Architecture = "staged", seed: int = 0) -> Training:
    recipe = Recipe(kind=kind, architecture=architecture, latents=4, width=16, seed=seed)
    return Training(recipe, recipe.options((1, 8, 8), 3), 3)


def epochs(training: Training, count: int) -> list[str]:
    return [str(losses) for _ in range(count) for losses in training.epoch(IMAGES)]


def equal(one: Training, other: Training) -> bool:
    first, second = one.tensors(), other.tensors()
    return first.keys() == second.keys() and all(torch.equal(t, second[name]) for name, t in first.items())


@pytest.mark.parametrize(
    ("kind", "architecture"), [("gan", "staged"), ("decoder", "staged"), ("vaegan", "staged"), ("vaegan", "dcgan")]
)
def test_it_goes_on_as_if_never_interrupted(kind: Kind, architecture: Architecture) -> None:
    straight, first, then = (started(kind, architecture) for _ in range(3))
    said = epochs(straight, 2)
    assert epochs(first, 1) == said[:2]
    then.restore(first.tensors(), epochs=first.epochs, steps=first.steps)
    assert epochs(then, 1) == said[2:]
    assert equal(straight, then)
    assert (then.epochs, then.steps) == (2, 4)


def test_it_is_a_function_of_its_seed_and_of_no_global_state() -> None:
    before = torch.get_rng_state()
    one, same, other = started("vaegan"), started("vaegan"), started("vaegan", seed=1)
    for training in (one, same, other):
        epochs(training, 1)
    assert equal(one, same)
    assert not equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_only_what_a_kind_needs_is_trained() -> None:
    names = {kind: set(started(kind).networks) for kind in get_args(Kind)}
    assert names == {
        "gan": {"generator", "judge"},
        "decoder": {"generator", "encoder"},
        "vaegan": {"generator", "encoder", "judge"},
    }


def test_the_averaged_weights_are_the_average() -> None:
    training, seen, kept = started("decoder"), list[torch.Tensor](), list[torch.Tensor]()
    for _ in range(2):
        for _ in training.epoch(IMAGES):
            seen.append(training.generator.state_dict()["first.weight"].clone())
            kept.append(training.averaged.state_dict()["first.weight"].clone())
    for step, (before, after) in enumerate(pairwise(kept), 2):
        share = step / (10 + step)
        torch.testing.assert_close(after, share * before + (1 - share) * seen[step - 1])


def test_a_decoder_learns_what_there_is() -> None:
    """Three images, one a class: the class alone tells them apart."""
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8, generator=derive(1))
    same = Split(images.repeat(64, 1, 1, 1), torch.arange(3).repeat(64))
    training = started("decoder")
    errors = [losses.error for _ in range(20) for losses in training.epoch(same)]
    first, last = errors[0], errors[-1]
    assert first is not None
    assert last is not None
    assert last < first / 10


@pytest.mark.parametrize(
    ("architecture", "width", "shape", "message"),
    [
        ("dcgan", 16, (1, 28, 28), "dcgan makes sides of 4, 8, 16"),
        ("staged", 24, (1, 28, 28), "expected a multiple of 16"),
        ("staged", 16, (3, 32, 24), "expected square images"),
    ],
)
def test_what_an_architecture_cannot_make_is_refused(
    architecture: Architecture, width: int, shape: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe(kind="gan", architecture=architecture, width=width).options(shape, 10)
