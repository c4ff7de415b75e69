from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from torch import nn

from attacks.problem import Problem
from attacks.variables import Pixels
from attacks.variables.starts import STARTS
from fl_sim.core.errors import ConfigError, MissingDataError
from fl_sim.core.seeds import derive
from fl_sim.core.types import Observation

NO_ARRAY = r"should be a \.npy of plain numbers"


@pytest.fixture
def problem(seen: Observation, model: nn.Module) -> Problem:
    return Problem.of(seen, model, derive(0), "cpu")


def images(variables: Pixels, problem: Problem, trials: int = 2) -> torch.Tensor:
    return variables.decode(variables.start(problem, trials, derive(1)), problem).images


@pytest.mark.parametrize("tile", [1, 3, 4, 8, 20])
def test_a_pattern_repeats_and_is_another_one_for_each_trial(problem: Problem, tile: int) -> None:
    start = Pixels(init="patterned", tile=tile).start(problem, 2, derive(1))["pixels"]
    assert start.shape == (2, 1, 1, 8, 8)
    assert torch.equal(start[..., tile:, :], start[..., :-tile, :])
    assert torch.equal(start[..., tile:], start[..., :-tile])
    assert not torch.equal(start[0], start[1])
    assert len(torch.unique(start[0])) == min(tile, 8) ** 2


@pytest.mark.parametrize(("init", "value"), [("dark", 0.0), ("light", 1.0), ("mean", 0.3)])
def test_plain_starts_are_of_one_colour(problem: Problem, init: Any, value: float) -> None:
    assert torch.allclose(images(Pixels(init=init), problem), torch.tensor(value), atol=1e-6)


def test_an_image_of_ones_own_starts_every_image_of_every_trial(problem: Problem, tmp_path: Path) -> None:
    own = np.random.default_rng(0).random((1, 8, 8))
    np.save(tmp_path / "own.npy", own)
    found = images(Pixels(init="image", image=str(tmp_path / "own.npy")), problem)
    assert torch.allclose(found, torch.from_numpy(own).float().expand(2, 1, 1, 8, 8), atol=1e-6)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((8, 8)), r"floats of shape \(1, 8, 8\), got float64 \(8, 8\)"),
        (np.zeros((1, 8, 8), np.uint8), "got uint8"),
        (np.full((1, 8, 8), 1.5), "got 1.5 to 1.5"),
        (np.full((1, 8, 8), np.nan), "got nan to nan"),
        (np.array([{}]), NO_ARRAY),
    ],
)
def test_a_file_with_another_thing_in_it_is_refused(
    problem: Problem, tmp_path: Path, array: np.ndarray[Any, Any], message: str
) -> None:
    np.save(tmp_path / "own.npy", array, allow_pickle=True)
    with pytest.raises(ConfigError, match=message):
        images(Pixels(init="image", image=str(tmp_path / "own.npy")), problem)


@pytest.mark.parametrize("content", [b"", b"no array", b"PK\x03\x04"])
def test_a_file_that_is_no_array_is_refused(problem: Problem, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "own.npy").write_bytes(content)
    with pytest.raises(ConfigError, match=NO_ARRAY):
        images(Pixels(init="image", image=str(tmp_path / "own.npy")), problem)


def test_no_file_is_said_to_be_so(problem: Problem, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="there is no file"):
        images(Pixels(init="image", image=str(tmp_path / "own.npy")), problem)


def test_an_archive_is_no_image(problem: Problem, tmp_path: Path) -> None:
    with (tmp_path / "own.npy").open("wb") as file:
        np.savez(file, own=np.zeros((1, 8, 8)))
    with pytest.raises(ConfigError, match=NO_ARRAY):
        images(Pixels(init="image", image=str(tmp_path / "own.npy")), problem)


@pytest.mark.parametrize("options", [{"init": "image"}, {"image": "own.npy"}])
def test_the_image_and_its_start_belong_together(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="belong together"):
        Pixels(**options)


def test_every_start_can_be_chosen() -> None:
    assert set(get_args(get_type_hints(Pixels)["init"])) == set(STARTS)
