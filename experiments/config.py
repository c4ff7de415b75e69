"""A study, as read from TOML. Names stay strings here; ``build`` makes them objects."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from experiments.parts import AttackPart, Part, part, parts
from fl_sim.core.errors import ConfigError, suggestion

STUDIES = Path(__file__).with_name("studies")

Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Data(Section):
    """Which images, and who holds them; ``partition`` takes the fields of fl_sim.data.partition.Partition."""

    name: str = "digits"
    path: str | None = None
    image_size: Count | None = None
    split: Literal["train", "test"] = "train"  # what clients hold; the other is for testing and public
    per_client: Count | None = None
    partition: dict[str, Any] = {}


class Federation(Section):
    """Who trains, how often, and how; the local part is fl_sim.core.types.Protocol."""

    clients: Count = 4
    cohort: Count | None = None  # clients that train in a round; all where it is not given
    rounds: Count = 3
    strategy: str = "FedAvg"
    strategy_options: dict[str, Any] = {}
    timeout: Annotated[float, Field(gt=0)] = 600.0
    mode: Literal["fedsgd", "fedavg"] = "fedsgd"
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    local_epochs: Count = 1
    batch_size: Count = 1
    momentum: Annotated[float, Field(ge=0)] = 0.0
    sampling: Literal["shuffle", "poisson"] = "shuffle"
    batchnorm: Literal["eval", "train"] = "eval"


class Adversary(Section):
    """What the server sees, where it looks, and what it is granted beyond the wire."""

    view: Literal["client", "aggregate"] = "client"
    rounds: list[Count] | None = None  # attacked rounds; all where neither they nor records are given
    records: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None  # the first after so many
    clients: list[Annotated[int, Field(ge=0)]] | None = None  # attacked clients; all where not given
    labels: bool = False
    protocol: bool = True
    defense: Literal["unknown", "kind", "parameters", "randomness"] = "unknown"


class Evaluation(Section):
    """How reconstructions and the model are judged."""

    test_images: Count = 1000  # for accuracy
    public_images: Count = 500  # for the controls and as distractors
    delta: Annotated[float, Field(gt=0)] | None = None  # L2 distance in normalised space that counts as found; 20 dB
    lpips: bool = True
    risk: Annotated[list[Part], BeforeValidator(parts)] = []  # predictors that stand beside what attacks measure
    gifd_compat: bool = False  # also SSIM and LPIPS as GIFD's code takes them, to stand beside that paper's tables


class Runtime(Section):
    """Where work happens; the same study gives the same records whatever stands here, rounding apart."""

    cpus: Count | None = None  # that Ray may use for clients; as many as there are, and memory allows
    actors: Count | None = None  # attacks at a time; one for each of these or, with gpus, as many as fit on the GPUs
    together: Count = 8  # most observations of a round that one attack searches at once
    compile: Literal["auto", "always", "never"] = "auto"  # searches' steps; auto: long work on small networks
    gpus: Annotated[float, Field(ge=0)] = 0.0  # share of a GPU for each attack actor
    client_gpus: Annotated[float, Field(ge=0)] = 0.0
    waiting: Count = 16  # observations that wait for an attack before the simulation waits
    start_timeout: Annotated[float, Field(gt=0)] = 600.0  # seconds in which clients must answer before the first round
    job_timeout: Annotated[float, Field(gt=0)] | None = None  # seconds, for each observation
    ray_address: str | None = None  # of an existing cluster


class Study(Section):
    """One question, asked of one federation, or of a grid of them."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    seed: int = 0
    data: Data = Data()
    model: Annotated[Part, BeforeValidator(part)] = Part(name="cnn")
    federation: Federation = Federation()
    defenses: Annotated[list[Part], BeforeValidator(parts)] = []
    adversary: Adversary = Adversary()
    attacks: Annotated[list[AttackPart], BeforeValidator(parts)] = Field(alias="attack", default=[])
    evaluation: Evaluation = Evaluation()
    runtime: Runtime = Runtime()
    grid: dict[str, list[Any]] = {}

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)

    @field_validator("grid")
    @classmethod
    def _no_empty_axis(cls, grid: dict[str, list[Any]]) -> dict[str, list[Any]]:
        if empty := [axis for axis, values in grid.items() if not values]:
            raise ValueError(f"expected at least one value, got none for {', '.join(empty)}")
        return grid

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, every default written out; :meth:`load_dict` reads it."""
        return self.model_dump(mode="json")

    def hash(self) -> str:
        """Of all that the records depend on: everything but ``runtime`` and ``attacks``, which can be added to."""
        return digest({k: v for k, v in self.as_dict().items() if k not in {"runtime", "attacks"}})

    def attacks_hash(self) -> str:
        """Of the attacks and of the files they use: what the records depend on beside the study."""
        kept = [{k: v for k, v in part.items() if k != "tune"} for part in self.as_dict()["attacks"]]
        return digest([kept, self.files()])

    def files(self) -> dict[str, str]:
        """Path and digest of each file that an attack names: a prior, a start."""
        return {path: digest_of(Path(path)) for part in self.attacks for path in sorted(part.files())}


def digest(tree: object) -> str:
    """Of anything JSON-able."""
    return blake2b(json.dumps(tree, sort_keys=True).encode(), digest_size=8).hexdigest()


def digest_of(path: Path) -> str:
    """Of a file's content."""
    return blake2b(path.read_bytes(), digest_size=8).hexdigest()


def find(name: str) -> Path:
    """The file of a study: a path, or the name of a bundled one."""
    if (path := Path(name)).suffix == ".toml" or path.exists():
        if not path.is_file():
            raise ConfigError(f"expected a study, there is no file {path}")
        return path
    if not (path := STUDIES / f"{name}.toml").exists():
        known = bundled()
        raise ConfigError(
            f"no study {name!r}: expected a .toml file or one of {', '.join(known)}{suggestion(name, known)}"
        )
    return path


def bundled() -> list[str]:
    return sorted(path.stem for path in STUDIES.glob("*.toml"))


def question(path: Path) -> str:
    """The first comment of a study: its question and the answer expected."""
    return question_in(path.read_text(encoding="utf-8"))


def question_in(text: str) -> str:
    """As :func:`question`, of a study's text."""
    comment = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.lstrip("# ").strip() for line in comment)


def load(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study and change it by ``key=value`` overrides: ``federation.rounds=1``; ``adversary.rounds=`` unsets."""
    return load_dict(read(path, overrides), str(path))


def read(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A study's tree, with overrides, not yet validated."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path), overrides)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected TOML, got: {error}") from error


def parse(text: str, source: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """As :func:`read`, of a study's text."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: expected TOML, got: {error}") from error
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"expected key=value, such as federation.rounds=1, got {override!r}")
        tree = replaced(tree, key.strip(), toml_value(value.strip()))
    return tree


def load_dict(tree: Mapping[str, Any], source: str) -> Study:
    """A study from its tree; ``[attack]`` and ``[[attacks]]`` are the same thing.

    Raises:
        ConfigError: With every problem that was found.
    """
    tree = dict(tree)
    if "attack" in tree and "attacks" in tree:
        raise ConfigError(f"{source}: expected [attack] or [[attacks]], got both")
    try:
        return Study.model_validate(tree)
    except ValidationError as error:
        raise ConfigError([_problem(source, e) for e in error.errors()]) from error


def replaced(tree: Mapping[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy of ``tree`` with the entry at dotted ``path`` set; without it where ``value`` is the empty string."""
    head, _, rest = path.partition(".")
    if not rest:
        return {**{key: kept for key, kept in tree.items() if key != head}, **({} if value == "" else {head: value})}
    below = tree.get(head, {})
    if isinstance(below, str):  # a part given by its bare name
        below = {"name": below}
    if not isinstance(below, Mapping):
        raise ConfigError(f"{path}: expected {head} to be a table, got {type(below).__name__}")
    return {**tree, head: replaced(below, rest, value)}


def toml_value(text: str) -> object:
    """``text`` as TOML, or as it is where that is no TOML: ``0.1``, ``[1, 2]``, ``mnist``."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _problem(source: str, error: Any) -> str:
    place = ".".join(str(step) for step in error["loc"])
    if error["type"] == "extra_forbidden":
        section: Any = Study
        for step in error["loc"][:-1]:
            section = getattr(section.model_fields.get(step), "annotation", None)
        known = list(getattr(section, "model_fields", {}))
        return (
            f"{source}: {place} is not a key; there are: {', '.join(known)}{suggestion(str(error['loc'][-1]), known)}"
        )
    return f"{source}: {place}: {error['msg']}, got {error['input']!r}"
