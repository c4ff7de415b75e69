"""From names to objects: the only place that looks in the registries."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any, TypeVar

from pydantic import ValidationError
from torch import nn

from attacks import ALIASES, ATTACKS
from defenses import DEFENSES
from defenses.privacy import Guarantee, central, guarantee
from experiments.config import Study, load_dict, replaced
from experiments.parts import AttackPart, Part
from experiments.risk import PREDICTORS, Predictor
from experiments.schedule import attacked_rounds
from fl_sim import models
from fl_sim.core.contracts import AnyDefense, Attack, ModelDefense
from fl_sim.core.errors import ConfigError, suggestion
from fl_sim.core.seeds import derive
from fl_sim.core.types import Protocol, Task
from fl_sim.data.clients import ClientData
from fl_sim.data.partition import Partition
from fl_sim.data.types import Images
from fl_sim.federation.central import CENTRAL
from fl_sim.federation.client import ClientJob, Data
from fl_sim.runtime.cells import CellStore

T = TypeVar("T")


@dataclass(frozen=True)
class ModelSpec:
    """A model as its configuration: small enough to travel, built once a process."""

    name: str
    options: tuple[tuple[str, Any], ...]
    task: Task
    seed: int
    defenses: tuple[ModelDefense, ...] = ()  # each wraps what those before it made

    def __call__(self) -> nn.Module:
        return _built(self)


@lru_cache(maxsize=8)
def _built(spec: ModelSpec) -> nn.Module:
    model = models.build(spec.name, spec.task, spec.seed, **dict(spec.options))
    for place, defense in enumerate(spec.defenses):
        model = defense.wrap(model, derive(spec.seed, "model", "defense", place))
    return model


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One point of a study's grid: a study of its own, without a grid."""

    name: str
    axes: Mapping[str, Any]
    study: Study

    @property
    def folder(self) -> str:
        """``name`` as a file name."""
        kept = "".join(c if c.isalnum() or c in "=.,_-" else "-" for c in self.name)
        return kept.replace("--", "-").strip("-") or "base"

    @property
    def defense(self) -> str:
        return defense_of(self.study)

    def data(self, data_dir: str | None) -> ClientData:
        d, federation = self.study.data, self.study.federation
        return ClientData(
            name=d.name,
            path=d.path,
            data_dir=data_dir,
            image_size=d.image_size,
            split=d.split,
            clients=federation.clients,
            partition=Partition(**tuples(d.partition)),
            per_client=d.per_client,
            seed=self.study.seed,
        )

    def images(self, data_dir: str | None) -> Images:
        """What its reconstructions are held against."""
        return self.data(data_dir)

    def rounds_done(self, place: CellStore) -> int:
        return place.rounds_done()

    def attacked_rounds(self, data_dir: str | None) -> list[int]:
        """The rounds of which observations are attacked, ascending."""
        return attacked_rounds(self.study, self.protocol(), self.data(data_dir))

    def expected_observations(self, data_dir: str | None) -> int:
        """How many of its observations are attacked; fewer where replies are refused."""
        study, rounds = self.study, len(self.attacked_rounds(data_dir))
        if study.adversary.view == "aggregate":
            return rounds
        cohort = study.federation.cohort or study.federation.clients
        return rounds * min(cohort, len(study.adversary.clients or range(cohort)))

    def reported(self) -> list[str]:
        """The attacks whose reconstructions are judged."""
        return [part.key() for part in self.study.attacks]

    def protocol(self) -> Protocol:
        f = self.study.federation
        names = ("mode", "learning_rate", "local_epochs", "batch_size", "momentum", "sampling", "batchnorm")
        return Protocol(**{name: getattr(f, name) for name in names})

    def model(self, task: Task) -> ModelSpec:
        wraps = tuple(defense for defense in self.defenses() if isinstance(defense, ModelDefense))
        return replace(self.bare(task), defenses=wraps)

    def bare(self, task: Task) -> ModelSpec:
        """The model without what defenses put into it."""
        part = self.study.model
        return ModelSpec(part.name, tuple(tuples(part.arguments).items()), task, self.study.seed)

    def defenses(self) -> tuple[AnyDefense, ...]:
        return tuple(build("defense", DEFENSES, part) for part in self.study.defenses)

    def predictors(self) -> dict[str, Predictor]:
        """By name, in their order."""
        asked = self.study.evaluation.risk
        if len({part.name for part in asked}) < len(asked):
            raise ConfigError(f"evaluation.risk: expected each predictor once, got {', '.join(map(str, asked))}")
        return {part.name: build("predictor", PREDICTORS, part) for part in asked}

    def guarantee(self, data_dir: str | None) -> Guarantee | None:
        """The differential privacy of a round: by its defenses, which holds against everybody, else by its server."""
        federation, data = self.study.federation, self.data(data_dir)
        sizes = [len(data.holdings(client)) for client in range(federation.clients)]
        found = guarantee(self.defenses(), self.protocol(), min(sizes), max(sizes))
        if found is None and federation.strategy == CENTRAL:
            return central(federation.strategy_options["noise_multiplier"])
        return found

    def job(self, data_dir: str | None) -> ClientJob:
        """What this cell's clients do."""
        data = self.data(data_dir)
        return self.job_on(data, data.task())

    def job_on(self, data: Data, task: Task) -> ClientJob:
        """As :meth:`job`, for clients who have their images from elsewhere."""
        return ClientJob(
            data=data,
            model=self.model(task),
            protocol=self.protocol(),
            defenses=self.defenses(),
            seed=self.study.seed,
        )


def cells(study: Study) -> list[Cell]:
    """The grid's cells in its own order, the last axis fastest; one cell where there is no grid.

    An axis is ``defense`` (each value a stack: a name, a table, or a list of these) or a dotted key of the study.
    """
    base = {**study.as_dict(), "grid": {}}
    found = []
    for values in product(*study.grid.values()):
        tree = base
        for axis, value in zip(study.grid, values, strict=True):
            tree = replaced(tree, "defenses" if axis == "defense" else axis, value)
        cell = load_dict(tree, "grid")
        axes = {axis: _text(axis, v, cell) for axis, v in zip(study.grid, values, strict=True)}
        name = ", ".join(f"{axis}={value}" for axis, value in axes.items()) or "base"
        defense = defense_of(cell)
        attacks = [part.against(defense) for part in cell.attacks if part.meets(defense)]
        found.append(Cell(name=name, axes=axes, study=cell.model_copy(update={"attacks": attacks})))
    if len({cell.folder for cell in found}) < len(found):
        raise ConfigError(f"grid: expected different cells, got the same one twice among {[c.name for c in found]}")
    return found


def defense_of(study: Study) -> str:
    """A cell's defenses as people read them."""
    return " + ".join(map(str, study.defenses)) or "none"


def attack(part: AttackPart) -> Attack:
    """By its name or an alias, in any case."""
    name = ALIASES.get(part.name.lower(), part.name.lower())
    if name not in ATTACKS:
        near = suggestion(part.name.lower(), [*ATTACKS, *ALIASES])
        raise ConfigError(f"no attack {part.name!r}; there are: {', '.join(ATTACKS)}{near}")
    return build("attack", ATTACKS, Part(name=name, **part.arguments))


def build(kind: str, registry: Mapping[str, Callable[..., T]], part: Part) -> T:
    """Call the factory that ``part`` names with its arguments.

    Raises:
        ConfigError: No such name, or arguments the factory does not take.
    """
    if part.name not in registry:
        known = sorted(registry)
        raise ConfigError(f"no {kind} {part.name!r}; there are: {', '.join(known)}{suggestion(part.name, known)}")
    factory = registry[part.name]
    signature = inspect.signature(factory)
    if problems := _misfits(part, signature):
        raise ConfigError([f"{kind} {part.name}: {problem}" for problem in problems])
    try:
        return factory(**tuples(part.arguments))
    except ValidationError as error:
        problems = [
            f"{_field(error.title, e['loc'], signature)}: {e['msg']}, got {e['input']!r}" for e in error.errors()
        ]
        raise ConfigError([f"{kind} {part.name}: {problem}" for problem in problems]) from error


def _misfits(part: Part, signature: inspect.Signature) -> list[str]:
    """Arguments that there are not, and those that are missing."""
    known = list(signature.parameters)
    needed = [name for name, one in signature.parameters.items() if one.default is inspect.Parameter.empty]
    unknown = [
        f"{name} is not an argument; there are: {', '.join(known)}{suggestion(name, known)}"
        for name in part.arguments
        if name not in known
    ]
    return unknown + [f"expected {name}, which has no default" for name in needed if name not in part.arguments]


def _field(owner: str, path: tuple[int | str, ...], signature: inspect.Signature) -> str:
    """Its name, and whose it is where the user's argument is called otherwise."""
    name = ".".join(map(str, path))
    return name if path and path[0] in signature.parameters else f"{owner}.{name}"


def _text(axis: str, value: object, cell: Study) -> Any:
    if axis == "defense":
        return defense_of(cell)
    return value if isinstance(value, (int, float, str)) else str(value)


def tuples(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Lists as tuples: parts are hashable."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
