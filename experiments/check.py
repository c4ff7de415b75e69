"""Is a study possible? Everything in it is built once before anything is run; every problem is said at once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from defenses import DEFENSES
from experiments import config
from experiments.build import Cell, ModelSpec, attack, build, cells
from experiments.clashes import central, clashes, mixable
from experiments.config import Study
from experiments.knowledge import empty_observations
from experiments.overlap import refuse_overlap
from experiments.parts import AttackPart, Part, canonical, parts
from experiments.rounds import refuse_other_images
from fl_sim.core.contracts import AnyDefense, Defense, GradientDefense
from fl_sim.core.errors import ConfigError, FlSimError, MissingDataError, suggestion
from fl_sim.core.seeds import derive
from fl_sim.core.types import Task, Update
from fl_sim.data.clients import ClientData
from fl_sim.federation.server import build_strategy

MOST_IMAGES = 256  # in one observation: more are out of every known attack's reach, and of memory
_PROBE: Mapping[str, tuple[int, ...]] = {"w": (64, 32), "b": (64,)}  # what defenses are tried on
SMALLEST = 7  # pixels a side, for SSIM's window


def load(path: Path, overrides: Sequence[str] = ()) -> Study:
    """As :func:`config.load`; where keys or values are wrong, its defenses and attacks are tried all the same.

    Raises:
        ConfigError: With every problem that was found.
    """
    tree = config.read(path, overrides)
    try:
        return config.load_dict(tree, str(path))
    except ConfigError as error:
        raise ConfigError([*error.problems, *_part_problems(tree)]) from error


def _part_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    grid = tree.get("grid", {})
    stacks = [tree.get("defenses", []), *(grid.get("defense", []) if isinstance(grid, Mapping) else [])]
    makers: list[tuple[object, Callable[[dict[str, Any]], object]]] = [
        *((stack, lambda part: build("defense", DEFENSES, Part(**part))) for stack in stacks),
        (tree.get("attacks", tree.get("attack", [])), lambda part: attack(AttackPart(**part))),
    ]
    for given, make in makers:
        try:
            named = [part for part in parts(given) if isinstance(part, dict) and "name" in part]
            for part in named:
                make(part)
        except ConfigError as error:
            yield from error.problems
        except ValidationError:
            continue  # said already, by the study's own validation


def check(study: Study, data_dir: str | None = None) -> list[Cell]:
    """The study's cells, once everything in them could be built.

    Raises:
        ConfigError: With every problem of every cell.
    """
    grid = cells(study)
    found = chain(_unmet(study, grid), untriable(study), *(_problems(cell, data_dir) for cell in grid))
    problems = dict.fromkeys(found)
    if own := [p for p in problems if p.partition(": ")[2] not in problems]:  # not what an attack repeats of its cell
        raise ConfigError(own)
    return grid


def _unmet(study: Study, grid: Sequence[Cell]) -> Iterator[str]:
    """Defenses that attacks name and no cell has."""
    known = list(dict.fromkeys(cell.defense for cell in grid))
    for part in study.attacks:
        for name in dict.fromkeys([*part.only, *part.tuned]):
            if canonical(name) not in map(canonical, known):
                there = f"{'; '.join(known)}{suggestion(name, known)}"
                yield f"attack {part.key()}, only and tuned: no cell has the defense {name!r}; there are: {there}"


def untriable(study: Study) -> Iterator[str]:
    """Values listed for tuning that an attack does not take."""
    for part in study.attacks:
        for name, values in part.tune.items():
            for value in values:
                try:
                    attack(part.model_copy(update={name: value}))
                except ConfigError as error:
                    yield from (f"tune: {problem}" for problem in error.problems)
                except MissingDataError:
                    continue  # said of the attack itself


def _problems(cell: Cell, data_dir: str | None) -> Iterator[str]:
    study, federation = cell.study, cell.study.federation
    cohort = federation.cohort or federation.clients
    checks: list[Callable[[], object]] = [
        lambda: _built(cell, data_dir),
        lambda: _fits(cell, cell.data(data_dir)),
        lambda: build_strategy(federation.strategy, cohort, federation.strategy_options),
        lambda: central(cell, data_dir),
        lambda: mixable(cell, data_dir),
        lambda: cell.attacked_rounds(data_dir),
        *(lambda part=part: build("defense", DEFENSES, part) for part in study.defenses),
        lambda: _decodable(cell),
        cell.predictors,
        *(lambda part=part: _possible(cell, part, data_dir) for part in study.attacks),
        *(lambda part=part: refuse_other_images(cell, part, data_dir) for part in study.attacks),
        *(lambda part=part: refuse_overlap(cell, part, data_dir) for part in study.attacks),
    ]
    for tried in checks:
        try:
            tried()
        except FlSimError as error:
            yield from _said(error)
        except ValidationError as error:
            yield from (f"{error.title}: {e['msg']}, got {e['input']!r}" for e in error.errors())
    yield from clashes(study)


def _built(cell: Cell, data_dir: str | None) -> nn.Module:
    """The bare model, also where a defense of the cell cannot be built."""
    return cell.bare(cell.data(data_dir).task())()


def _said(error: FlSimError) -> Sequence[str]:
    return error.problems if isinstance(error, ConfigError) else [str(error)]


def _fits(cell: Cell, data: ClientData) -> None:
    """Data, model and sizes go together: an attacked update is not of too many images, and the model answers a batch.

    Raises:
        ConfigError: They do not.
    """
    federation, adversary, task = cell.study.federation, cell.study.adversary, data.task()
    size = cell.protocol().round_size
    chosen = adversary.clients if adversary.view == "client" else None
    most = max(len(data.used(client, 1, size)) for client in chosen or range(federation.clients))
    if cell.study.attacks and most > MOST_IMAGES:
        raise ConfigError(
            f"expected at most {MOST_IMAGES} images in an update that is attacked, got {most}, all to be reconstructed "
            "at once: lower federation.batch_size (fedsgd) or set data.per_client (fedavg)"
        )
    if min(task.image_shape[1:]) < SMALLEST:
        raise ConfigError(f"expected images of {SMALLEST}x{SMALLEST} pixels or more, got {task.image_shape[1:]}")
    _answers(cell.model(task), task)
    for defense in cell.defenses():
        if isinstance(defense, GradientDefense):
            defense.check(cell.model(task)())
    _draws_in_the_open(cell, task)


def _draws_in_the_open(cell: Cell, task: Task) -> None:
    """What a model draws has to come from the client's own generator, or no record could be made twice."""
    active = [m for m in cell.model(task)().modules() if isinstance(m, _DropoutNd) and m.p > 0]
    if cell.study.federation.batchnorm == "train" and active:
        raise ConfigError(
            f'federation.batchnorm = "train" also trains with {active[0]}, which draws from torch\'s global generator: '
            'set "eval", or use fl_sim.models.stochastic.Dropout, whose draws are handed over'
        )


def _answers(spec: ModelSpec, task: Task) -> None:
    """Build the model and let it answer two images."""
    try:
        model = spec().eval()
        with torch.no_grad():
            shape = tuple(model(torch.zeros(2, *task.image_shape)).shape)
    except FlSimError:
        raise
    except Exception as error:  # somebody's own model may raise anything
        raise ConfigError(
            f"model {spec.name!r} should answer images {task.image_shape}, it raised {error!r}"
        ) from error
    if shape != (2, task.classes):
        raise ConfigError(f"model {spec.name!r} should give {task.classes} logits an image, got {shape[1:]}: change it")


def _possible(cell: Cell, part: AttackPart, data_dir: str | None) -> None:
    """An attack that can only refuse is refused before anything is trained."""
    made = attack(part)
    try:
        for seen, model in empty_observations(cell, data_dir):
            made.check(replace(seen, earlier=(seen,)) if part.joint else seen, model)
    except FlSimError as error:
        raise ConfigError([f"attack {part.key()}: {problem}" for problem in _said(error)]) from error


def _garbled(defenses: Sequence[AnyDefense]) -> bool:
    """Whether a server would decode something else than what these defenses send; tried on random numbers."""
    stack, rng = [d for d in defenses if isinstance(d, Defense)], derive(0, "probe")
    update = Update(delta={name: torch.randn(s, generator=rng) for name, s in _PROBE.items()}, num_examples=1)
    for defense in stack:
        update = defense.protect(update, rng).update
    payload = update.delta
    for defense in stack:
        payload = defense.codec.encode(payload)
    for defense in reversed(stack):
        payload = defense.codec.decode(payload, update.delta)
    return any(not torch.allclose(payload[name], t, rtol=1e-3, atol=1e-5) for name, t in update.delta.items())


def _decodable(cell: Cell) -> None:
    """A codec says only what its own defense makes: what comes after it must leave that as it is."""
    if _garbled(cell.defenses()):
        raise ConfigError(
            f"defenses: {cell.defense}: expected what a server can decode, got something that an earlier defense's "
            "code cannot say: put quantize, signsgd, powersgd or sketch last, and only one of them"
        )
