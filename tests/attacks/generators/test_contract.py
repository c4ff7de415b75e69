"""What every generator owes. Runs on each architecture in the registry, small, with random weights."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch.func import functional_call

from attacks.generators import GENERATORS, Generator, State, group
from fl_sim.core.seeds import derive, derive_int

OPTIONS: Mapping[str, dict[str, Any]] = {
    "staged": {"image_shape": (1, 12, 12), "classes": 4, "latents": 6, "width": 16, "embedding": 3},
    "dcgan": {"image_shape": (3, 8, 8), "latents": 5, "channels": (8, 6)},
    "mlp": {"image_shape": (1, 6, 6), "widths": (5, 9, 7)},
    "biggan_deep": {"resolution": 128, "classes": 3, "latents": 5, "width": 4, "smallest": 1},
    "stylegan2": {
        "image_shape": (3, 16, 16),
        "channels": (6, 8, 5),
        "classes": 3,
        "latents": 6,
        "styles": 7,
        "mapping": 2,
    },
}


@pytest.fixture(params=sorted(GENERATORS))
def generator(request: pytest.FixtureRequest) -> Generator:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_int(0, request.param))
        made = GENERATORS[request.param](**OPTIONS[request.param])
    return made.eval().requires_grad_(requires_grad=False)


def state(generator: Generator, count: int = 3, seed: int = 0) -> State:
    classes = max(1, generator.classes)
    condition = torch.eye(classes)[torch.arange(count) % classes][:, : generator.classes]
    return generator.start(count, condition, derive(seed))


def test_images_are_images(generator: Generator) -> None:
    images = generator(state(generator, 5))
    assert images.shape == (5, *generator.image_shape)
    assert bool(((images >= 0) & (images <= 1)).all())
    assert images.flatten(1).std(0).max() > 0, "latents make a difference"


def test_what_comes_of_a_stage_is_all_that_later_ones_need(generator: Generator) -> None:
    begun = state(generator)
    whole = generator(begun)
    for place in range(generator.depth + 1):
        assert torch.equal(generator(generator.run(begun, 0, place), place), whole), place


def test_what_is_searched_is_in_the_state_and_matters(generator: Generator) -> None:
    now = state(generator)
    for place in range(generator.depth):
        names = generator.searched(place)
        assert names
        assert {group(name) for name in names} <= {"latent", "noise", "feature"}
        searched = {name: now[name].clone().requires_grad_() for name in names}
        slopes = torch.autograd.grad(generator({**now, **searched}, place).square().sum(), list(searched.values()))
        assert all(bool((slope != 0).any()) for slope in slopes), place
        now = generator.stage(place, now)


def test_rows_do_not_touch(generator: Generator) -> None:
    begun = state(generator, 4)
    alone = torch.cat([generator({name: v[i : i + 1] for name, v in begun.items()}) for i in range(4)])
    assert torch.allclose(generator(begun), alone, atol=1e-6)


def test_the_same_draws_make_the_same_images(generator: Generator) -> None:
    assert torch.equal(generator(state(generator)), generator(state(generator)))
    assert not torch.equal(generator(state(generator)), generator(state(generator, seed=1)))


def test_it_can_be_differentiated_twice(generator: Generator) -> None:
    now = {name: v.double() for name, v in state(generator, 1).items()}
    generator = generator.double()
    name = generator.searched(0)[0]
    start = now[name].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda latent: generator({**now, name: latent}), start, fast_mode=True)


def test_every_image_can_have_weights_of_its_own(generator: Generator) -> None:
    """As GIAS searches them: stacked, all at once."""
    begun = state(generator, 2)
    mine = {name: weight.detach() for name, weight in generator.named_parameters()}
    other = {name: weight * 1.1 for name, weight in mine.items()}
    stacked = {name: torch.stack([mine[name], other[name]]) for name in mine}
    rows = {name: value[:, None] for name, value in begun.items()}
    together = torch.vmap(lambda weights, row: functional_call(generator, weights, (row,)))(stacked, rows)
    for i, weights in enumerate((mine, other)):
        alone = functional_call(generator, weights, ({name: value[i] for name, value in rows.items()},))
        assert torch.allclose(together[i], alone, atol=1e-5)
