"""Finding an attack's settings, on other images than those that will be reported.

One argument at a time, in the order the study lists them: every value is tried on the same observations, the best mean
PSNR is kept for each defense, and the next argument starts from there; further sweeps start from the best of the one
before, because arguments depend on each other. The truth is used, as the paper does (arXiv
2111.04706), but not that of the images that the study reports, unless ``oracle`` asks for just that.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import inf
from statistics import fmean
from typing import Any, NamedTuple

from experiments import pipeline
from experiments.build import Cell, cells
from experiments.check import untriable
from experiments.config import Study
from experiments.parts import AttackPart
from experiments.pipeline import Executor, Run
from experiments.watch import Watch
from fl_sim.core.errors import ConfigError, FlSimError
from fl_sim.runtime.store import RunStore

Setting = dict[str, Any]
Best = dict[str, dict[str, Setting]]
"""By attack and defense."""


class Trial(NamedTuple):
    """The values of one argument of an attack."""

    part: AttackPart
    argument: str
    values: list[Any]
    sweep: int

    @property
    def labels(self) -> dict[str, Any]:
        """Under which name each value is run."""
        plain = all(isinstance(value, (int, float, str)) and "/" not in str(value) for value in self.values)
        names = self.values if plain else [f"#{place}" for place, _ in enumerate(self.values, 1)]
        again = f" again {self.sweep}" if self.sweep else ""
        pairs = zip(names, self.values, strict=True)
        return {f"{self.part.key()} {self.argument}={name}{again}": value for name, value in pairs}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """On what, and how often.

    Args:
        seed: Of the tuning run: other partitions, images, weights and draws than the study's.
        clients: How many clients are attacked in each attacked round.
        sweeps: Times that all arguments are gone through.
        oracle: Tune on the study's own seed and so on its own images: an upper bound, not an audit.
    """

    seed: int
    clients: int
    sweeps: int = 1
    oracle: bool = False

    def __str__(self) -> str:
        """As options of ``fl-sim tune``."""
        sweeps, oracle = f" --sweeps {self.sweeps}" if self.sweeps > 1 else "", " --oracle" if self.oracle else ""
        return f"--seed {self.seed} --clients {self.clients}{sweeps}{oracle}"


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """A tuning run of a study, in a folder of its own; run again, it goes on where it was."""

    study: Study
    store: RunStore
    plan: Plan
    command: str
    data_dir: str | None
    executor: Executor

    def __call__(self, watch: Watch) -> Best:
        """The best setting found, by attack and defense; every figure is in the folder's records."""
        self.refuse_reported_images()
        tuned = [part for part in self.study.attacks if part.tune]
        if not tuned:
            raise ConfigError(
                f"{self.study.name}: expected an attack with values to try, such as tune = {{ tv = [0.1] }}"
            )
        if problems := list(untriable(self.study)):
            raise ConfigError(problems)
        question = f"Which settings suit the attacks of {self.study.name}? Tuning: not to be reported."
        pipeline.create(self.store, self.tuning_study(), question, self.command)
        pipeline.opened(self.store, self.executor, self.data_dir).simulate(watch)
        defenses = dict.fromkeys(cell.defense for cell in cells(self.study))
        best: Best = {part.key(): {d: {} for d in defenses if part.meets(d)} for part in tuned}
        for sweep in range(self.plan.sweeps):
            lists = ([Trial(part, *item, sweep) for item in part.tune.items()] for part in tuned)
            for trials in zip_longest(*lists):
                self._try([trial for trial in trials if trial is not None], best, watch)
        return best

    def tuning_study(self) -> Study:
        """The study without its attacks, on other data."""
        attacked = self.study.adversary.clients or list(range(self.study.federation.clients))
        adversary = self.study.adversary.model_copy(update={"clients": attacked[: self.plan.clients]})
        changes = {"name": f"{self.study.name}-tune", "attacks": [], "adversary": adversary}
        if not self.plan.oracle:
            changes["seed"] = self.plan.seed
            changes["grid"] = {axis: values for axis, values in self.study.grid.items() if axis != "seed"}
        return self.study.model_copy(update=changes)

    def refuse_reported_images(self) -> None:
        """Raises:
        ConfigError: An image would be both tuned on and reported.
        """
        if self.plan.oracle:
            return
        both = attacked_images(cells(self.study), self.data_dir) & attacked_images(
            cells(self.tuning_study()), self.data_dir
        )
        if both:
            raise ConfigError(
                f"--seed {self.plan.seed}: expected tuning images that the study does not report, got {len(both)} that "
                "it does: choose another --seed"
            )

    def _try(self, trials: Sequence[Trial], best: Best, watch: Watch) -> None:
        """Run one argument of every attack, and add the winners to ``best``."""
        for trial in trials:
            for label, value in trial.labels.items():
                settings = {
                    defense: {**sofar, trial.argument: value} for defense, sofar in best[trial.part.key()].items()
                }
                part = trial.part
                setting = AttackPart(
                    name=part.name, label=label, only=part.only, tuned=settings, joint=part.joint, **part.arguments
                )
                pipeline.add_attack(self.store, setting)
        run = pipeline.opened(self.store, self.executor, self.data_dir)
        run.attack(watch)
        run.evaluate(watch)
        refuse_failures(run)
        found = mean_psnr(run)
        for trial in trials:
            for defense, sofar in best[trial.part.key()].items():
                winner = max(trial.labels, key=lambda label, at=defense: found.get((at, label), -inf))  # type: ignore[misc]
                sofar[trial.argument] = trial.labels[winner]


def attacked_images(grid: list[Cell], data_dir: str | None) -> set[int]:
    """Indices of the training images behind all observations that a study attacks."""
    return {image for cell in grid for image in _attacked(cell, data_dir)}


def _attacked(cell: Cell, data_dir: str | None) -> Iterator[int]:
    federation, adversary = cell.study.federation, cell.study.adversary
    data, size = cell.data(data_dir), cell.protocol().round_size
    for round_ in cell.attacked_rounds(data_dir):
        for client in adversary.clients or range(federation.clients):
            yield from data.used(client, round_, size).tolist()


def refuse_failures(run: Run) -> None:
    """A mean without the images on which a setting failed would flatter it.

    Raises:
        FlSimError: A trial failed.
    """
    failed = [r for r in run.store.records() if not r["psnr"]]
    if failed:
        raise FlSimError(
            f"expected every trial to end, {len(failed)} failed, such as {failed[0]['attack']!r}: "
            f"{failed[0]['reason']}: mend the study, then run this again; what has ended is kept"
        )


def mean_psnr(run: Run) -> dict[tuple[str, str], float]:
    """Over all judged images, by defense and attack."""
    found = defaultdict[tuple[str, str], list[float]](list)
    for record in run.store.records():
        found[record["defense"], record["attack"]] += record["psnr"] or []
    return {key: fmean(values) for key, values in found.items() if values}


def edges(study: Study, found: Best) -> Iterator[str]:
    """Where the best of three numbers or more is the least or the greatest: a better one may lie beyond."""
    for part in study.attacks:
        for name, values in part.tune.items():
            if len(values) < 3 or not all(isinstance(value, (int, float)) for value in values):
                continue
            for defense, setting in found[part.key()].items():
                if setting[name] in {min(values), max(values)}:
                    yield f"{part.key()} against {defense}: {name} = {setting[name]} is at the end of the values tried"


def as_toml(found: Mapping[str, Mapping[str, Setting]]) -> str:
    """What to write below each attack of the study."""
    blocks = []
    for attack, by_defense in found.items():
        rows = [f"{json.dumps(defense)} = {_table(setting)}" for defense, setting in by_defense.items()]
        blocks.append("\n".join([f"# {attack}", "[attacks.tuned]", *rows]))
    return "\n\n".join(blocks)


def _table(setting: Mapping[str, Any]) -> str:
    return "{ " + ", ".join(f"{name} = {_toml(value)}" for name, value in setting.items()) + " }"


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return _table(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)
