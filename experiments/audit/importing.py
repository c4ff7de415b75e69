"""From recorded files, or from what ``Intercept`` wrote, to a run folder; every problem is said at once."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path

from torch import nn

from defenses import DEFENSES
from experiments import config
from experiments.audit.arrays import read, read_images
from experiments.audit.config import Audit, Recording
from experiments.audit.diagnosis import Finding, diagnose
from experiments.audit.evidence import Evidence
from experiments.audit.naming import Named, Naming
from experiments.audit.truth import Recorded
from experiments.build import ModelSpec, build, tuples
from fl_sim.core.contracts import ModelDefense
from fl_sim.core.errors import ConfigError, MissingDataError
from fl_sim.core.trees import subtract
from fl_sim.core.types import Observation, Task, Tensors, Update
from fl_sim.runtime.cells import CellStore, Key
from fl_sim.training.local import State, state_of


@dataclass(frozen=True)
class Import:
    """An audit whose paths are read from ``root``, AUDIT.toml's folder."""

    audit: Audit
    root: Path

    def into(self, place: CellStore) -> list[Finding]:
        """Write the observations and the truth; what is wrong with them.

        Raises:
            ConfigError: A file of another kind or of another model; what was written until then is no run yet.
            MissingDataError: A file that is not there.
        """
        if problems := list(self._apart(self.digests())):
            raise ConfigError(problems)
        evidence = self._recorded() if self.audit.task else self._intercepted(place)
        found = diagnose(_saved(place, evidence), defended=bool(self.audit.defenses))
        if not place.observation_keys():
            raise ConfigError(f"expected updates that Intercept recorded in {place.path}, got none: set [task]")
        self._save_truth(place)
        return found

    def study(self, place: CellStore) -> config.Study:
        """The audit in a study's words: what attacks, reports and the threat model read."""
        keys = place.observation_keys()
        first = place.observation(keys[0])
        mode = {"mode": "fedsgd" if first.update.kind == "gradient" else "fedavg"}
        protocol = mode if first.protocol is None else asdict(first.protocol)
        whole = self.audit.model_dump(
            mode="json", include={"name", "seed", "model", "defenses", "evaluation", "runtime"}
        )
        sizes = {"clients": len({key.client for key in keys}), "rounds": max(key.round for key in keys)}
        view = {"view": "aggregate" if len(first.members) > 1 else "client", "protocol": first.protocol is not None}
        adversary = self.audit.adversary.model_dump() | view
        tree = whole | {"federation": protocol | sizes, "adversary": adversary, "data": {"name": "recorded"}}
        return config.load_dict(tree, "audit")

    def digests(self) -> dict[str, str]:
        """Of every file that is named.

        Raises:
            MissingDataError: One is not there.
        """
        if missing := [path for path in self.audit.files() if not (self.root / path).is_file()]:
            raise MissingDataError(f"expected {', '.join(missing)} in {self.root.absolute()}: correct AUDIT.toml")
        return {path: config.digest_of(self.root / path) for path in self.audit.files()}

    def _apart(self, digests: Mapping[str, str]) -> Iterator[str]:
        """Rounds in which clients started from different weights, of which only one kind is kept."""
        starts = defaultdict[int, set[str]](set)
        for one in self.audit.updates:
            starts[one.round] |= {digests[one.before]} if one.before is not None else set()
        for number in (number for number, files_ in starts.items() if len(files_) > 1):
            yield (
                f"updates: expected one before for all clients of round {number}: give others a round of their own, or "
                "swap before and after"
            )

    def _recorded(self) -> Iterator[Evidence]:
        assert self.audit.task is not None
        task, problems = self.audit.task.built(), list[str]()
        naming = Naming(self.model(task), self.audit.names, self.audit.transpose)
        by_start = sorted(self.audit.updates, key=lambda one: (one.round, str(one.before), one.client))
        for path, those in groupby(by_start, key=lambda one: str(one.before)):
            try:
                before = naming(read(self.root / path), path)
                yield from [self._evidence(one, before, naming, task) for one in those]
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(list(dict.fromkeys(problems)))

    def _evidence(self, one: Recording, before: Named, naming: Naming, task: Task) -> Evidence:
        way = one.given()[0]
        after = naming(read(self.root / (path := getattr(one, way))), path)
        fresh, absent = _completed(naming.model, before.state.buffers)
        weights, buffers = after.state if way == "after" else State(after.state.weights, {})
        assert one.examples is not None  # config says so
        seen = Observation(
            round=one.round,
            client=one.client,
            members=(one.client,),
            task=task,
            broadcast=before.state.weights,
            buffers=fresh,
            update=Update(
                delta=subtract(weights, before.state.weights) if way == "after" else weights,
                num_examples=one.examples,
                kind="gradient" if way == "gradient" else "delta",
                buffers=buffers if buffers.keys() == fresh.keys() else {},
            ),
            protocol=self.audit.protocol.built() if self.audit.protocol else None,
        )
        counters = (before.counter, after.counter) if way == "after" else (None, None)
        counted = None if None in counters else counters[1] - counters[0]  # type: ignore[operator]
        return Evidence(seen=seen, model=naming.model, absent=absent, counted=counted)

    def _intercepted(self, place: CellStore) -> Iterator[Evidence]:
        """With the audit's protocol, where it gives one."""
        for seen in place.observations(place.observation_keys()):
            protocol = self.audit.protocol.built() if self.audit.protocol else seen.protocol
            model = self.model(seen.task)
            yield Evidence(seen=replace(seen, protocol=protocol), model=_checked(model, seen))

    def model(self, task: Task) -> nn.Module:
        """Wrapped as the clients' defenses say.

        Raises:
            ConfigError: No such model or defense.
        """
        made = [build("defense", DEFENSES, part) for part in self.audit.defenses]
        wraps = tuple(defense for defense in made if isinstance(defense, ModelDefense))
        options = tuple(tuples(self.audit.model.arguments).items())
        return ModelSpec(self.audit.model.name, options, task, self.audit.seed, wraps)()

    def _save_truth(self, place: CellStore) -> None:
        truth, groups = Recorded(place), {key: place.members(key) for key in place.observation_keys()}
        task, known = truth.task(), {Key(key.round, member): key for key, those in groups.items() for member in those}
        for one in (one for one in self.audit.updates if one.truth is not None):
            if (key := Key(one.round, one.client)) not in known:
                raise ConfigError(f"updates: no update of round {one.round}, client {one.client} was recorded")
            batch, wanted = read_images(self.root / str(one.truth), task), place.num_examples(known[key])
            if len(batch.labels) != wanted and len(groups[known[key]]) == 1:
                raise ConfigError(f"{one.truth}: expected the {wanted} images of the update, got {len(batch.labels)}")
            truth.save(key, batch)
        if self.audit.public is not None:
            truth.save_public(read_images(self.root / self.audit.public, task, labelled=False).images)


def _saved(place: CellStore, found: Iterable[Evidence]) -> Iterator[Evidence]:
    """One after the other, for all together may not fit in memory."""
    for evidence in found:
        place.save_observation(evidence.seen)
        yield evidence


def _completed(model: nn.Module, recorded: Tensors) -> tuple[Tensors, tuple[str, ...]]:
    """The model's batch-norm statistics, those of a fresh one where none was recorded; and which these are."""
    fresh = state_of(model).buffers
    return {name: recorded.get(name, t) for name, t in fresh.items()}, tuple(n for n in fresh if n not in recorded)


def _checked(model: nn.Module, seen: Observation) -> nn.Module:
    """
    Raises:
        ConfigError: It is not the model whose weights were seen.
    """
    mine = {name: tuple(t.shape) for name, t in state_of(model).weights.items()}
    if mine != (theirs := {name: tuple(t.shape) for name, t in seen.broadcast.items()}):
        apart = sorted(set(mine.items()) ^ set(theirs.items()))
        raise ConfigError(f"expected the model that was trained; in model and record differ {apart[:6]}: correct model")
    return model
