"""AUDIT.toml: what was recorded, of which model, under which protocol."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from experiments import config
from experiments.config import Count, Section
from experiments.parts import Part, part, parts
from fl_sim.core import types
from fl_sim.core.errors import ConfigError, suggestion

WAYS = ("after", "change", "gradient")


class Task(Section):
    """As :class:`fl_sim.core.types.Task`."""

    image_shape: Annotated[list[Count], Field(min_length=3, max_length=3)]  # channels, height, width
    classes: Annotated[int, Field(ge=2)]
    mean: list[float]
    std: list[Annotated[float, Field(gt=0)]]

    @model_validator(mode="after")
    def _per_channel(self) -> Self:
        if {len(self.mean), len(self.std)} != {self.image_shape[0]}:
            raise ValueError(f"expected {self.image_shape[0]} means and stds, one a channel, got {self.mean, self.std}")
        return self

    def built(self) -> types.Task:
        c, h, w = self.image_shape
        return types.Task(image_shape=(c, h, w), classes=self.classes, mean=tuple(self.mean), std=tuple(self.std))


class Protocol(Section):
    """As :class:`fl_sim.core.types.Protocol`; one step on all images is ``batch_size`` at least as large."""

    mode: Literal["fedsgd", "fedavg"]
    learning_rate: Annotated[float, Field(gt=0)]
    local_epochs: Count = 1
    batch_size: Count = 1
    momentum: Annotated[float, Field(ge=0)] = 0.0
    sampling: Literal["shuffle", "poisson"] = "shuffle"
    batchnorm: Literal["eval", "train"] = "eval"

    def built(self) -> types.Protocol:
        return types.Protocol(**self.model_dump())


class Recording(Section):
    """One client's update in one round; paths are read from AUDIT.toml's own folder.

    ``before`` holds the weights that were sent, with batch-norm statistics; then one of ``after`` (the weights that
    came back), ``change`` (after minus before), ``gradient``. Of what ``Intercept`` recorded, only ``truth`` is named.
    """

    round: Count = 1
    client: Annotated[int, Field(ge=0)] = 0
    examples: Count | None = None
    before: str | None = None
    after: str | None = None
    change: str | None = None
    gradient: str | None = None
    truth: str | None = None  # images and labels, to judge by; attacks do not see them

    def given(self) -> list[str]:
        return [way for way in WAYS if getattr(self, way) is not None]

    def files(self) -> list[str]:
        return [path for path in (self.before, self.after, self.change, self.gradient, self.truth) if path is not None]


class Audit(Section):
    """One file, one audit. Without ``task``, the updates are those that ``Intercept`` recorded in the file's folder.

    ``names``: recorded name to the model's, or the model's names in the order of recorded lists. ``transpose``: the
    model's names of matrices that were recorded input by output. ``public``: images that no client has, for controls.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = "audit"
    question: str = "What do these recorded updates give away?"
    seed: int = 0
    model: Annotated[Part, BeforeValidator(part)]
    task: Task | None = None
    protocol: Protocol | None = None
    names: dict[str, str] | list[str] = Field(default_factory=dict)
    transpose: list[str] = Field(default_factory=list)
    updates: list[Recording] = Field(default_factory=list)
    public: str | None = None
    defenses: Annotated[list[Part], BeforeValidator(parts)] = Field(default_factory=list)
    adversary: config.Adversary = config.Adversary()
    evaluation: config.Evaluation = config.Evaluation()
    runtime: config.Runtime = config.Runtime()

    def files(self) -> list[str]:
        """Every path it names, once."""
        named = [path for one in self.updates for path in one.files()]
        return list(dict.fromkeys([*named, *([self.public] if self.public else [])]))


def load(path: Path) -> Audit:
    """Read an audit.

    Raises:
        ConfigError: With every problem that was found.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected TOML, got: {error}") from error
    try:
        audit = Audit.model_validate(tree)
    except ValidationError as error:
        raise ConfigError([_problem(path, e) for e in error.errors()]) from error
    if problems := [f"{path}: {problem}" for problem in [*_grants(audit), *_updates(audit)]]:
        raise ConfigError(problems)
    return audit


def _grants(audit: Audit) -> list[str]:
    found = []
    if audit.adversary.defense == "randomness":
        found.append('adversary.defense: what a defense drew was not recorded: set "parameters" at most')
    if audit.adversary.labels and any(one.truth is None for one in audit.updates):
        found.append("adversary.labels: expected the truth of every update, from which labels are granted: give it")
    if audit.adversary.rounds or audit.adversary.records or audit.adversary.clients:
        found.append(
            "adversary: all that is imported is attacked: leave rounds, records, clients out, name fewer updates"
        )
    if audit.adversary.view == "aggregate":
        found.append("adversary.view: expected client: a recorded sum is one update, with the examples of all in it")
    return found


def _updates(audit: Audit) -> list[str]:
    if audit.task is None:
        return []
    found = [] if audit.updates else ["expected [[updates]], got none"]
    mode = audit.protocol.mode if audit.protocol else None
    for one in audit.updates:
        where = f"updates, round {one.round}, client {one.client}"
        if one.before is None or one.examples is None or len(one.given()) != 1:
            found.append(f"{where}: expected before, examples and one of {', '.join(WAYS)}, got {one.given()}")
        elif mode is not None and (mode == "fedsgd") != (one.gradient is not None):
            found.append(f'{where}: gradients are mode = "fedsgd", weights and changes "fedavg"; got {mode!r}')
    places = [(one.round, one.client) for one in audit.updates]
    found += [f"updates: round {r}, client {c} is there twice" for r, c in {p for p in places if places.count(p) > 1}]
    return found


def _problem(path: Path, error: Any) -> str:
    place = ".".join(str(step) for step in error["loc"])
    if error["type"] == "extra_forbidden" and len(error["loc"]) == 1:
        known = list(Audit.model_fields)
        return f"{path}: {place} is not a key; there are: {', '.join(known)}{suggestion(place, known)}"
    return f"{path}: {place}: {error['msg']}, got {error['input']!r}"
