"""One cell's folder: observations, reconstructions, training rows, a checkpoint; see :mod:`fl_sim.runtime.store`."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from fl_sim.core.errors import StoreError
from fl_sim.core.types import Budget, Observation, Outcome, Protocol, Reconstruction, Task, Tensors, Update
from fl_sim.runtime import files
from fl_sim.runtime.files import JSON
from fl_sim.training.local import State


class Key(NamedTuple):
    """Which observation; attacks on it share the name."""

    round: int
    client: int

    def __str__(self) -> str:
        return f"r{self.round:04d}-c{self.client:04d}"


@dataclass(frozen=True)
class CellStore:
    """The folder of one cell."""

    path: Path

    def observation_keys(self) -> list[Key]:
        """Of whole observations, in order."""
        found = (self.path / "observations").glob("r*-c*.safetensors")
        return sorted(Key(*map(int, p.stem.removeprefix("r").split("-c"))) for p in found)

    def save_observation(self, seen: Observation) -> None:
        broadcast = self.path / "broadcast" / f"r{seen.round:04d}.safetensors"
        if not broadcast.exists():
            files.write_tensors(
                broadcast, {**seen.broadcast, **_tagged("buffer", seen.buffers)}, _names(seen.broadcast)
            )
        about = {
            "round": seen.round,
            "client": seen.client,
            "members": list(seen.members),
            "num_examples": seen.update.num_examples,
            "kind": seen.update.kind,
            "task": asdict(seen.task),
            "protocol": None if seen.protocol is None else asdict(seen.protocol),
        }
        tensors = {**_tagged("delta", seen.update.delta), **_tagged("buffer", seen.update.buffers)}
        files.write_tensors(self._observation(Key(seen.round, seen.client)), tensors, about)

    def observation(self, key: Key) -> Observation:
        """As the server saw it; what the study grants beyond that is not in the file."""
        return next(self.observations([key]))

    def observations(self, keys: Iterable[Key]) -> Iterator[Observation]:
        """As :meth:`observation` gives each; those of a round that follow one another have one copy of its weights."""
        for number, those in groupby(keys, lambda key: key.round):
            sent = self._sent(number)
            yield from (self._seen(key, sent) for key in those)

    def _sent(self, number: int) -> State:
        """What was sent to the clients in a round."""
        tensors, about = files.read_tensors(self.path / "broadcast" / f"r{number:04d}.safetensors")
        return State({name: tensors[name] for name in about["weights"]}, _untagged("buffer", tensors))

    def _seen(self, key: Key, sent: State) -> Observation:
        tensors, about = files.read_tensors(self._observation(key))
        delta = _untagged("delta", tensors)
        return Observation(
            round=about["round"],
            client=about["client"],
            members=tuple(about["members"]),
            task=_task(about["task"]),
            broadcast=sent.weights,
            buffers=sent.buffers,
            update=Update(
                delta={name: delta[name] for name in sent.weights},
                num_examples=about["num_examples"],
                kind=about["kind"],
                buffers=_untagged("buffer", tensors),
            ),
            protocol=None if about["protocol"] is None else Protocol(**about["protocol"]),
        )

    def earlier(self, key: Key) -> list[Key]:
        """The observations of this client in earlier rounds, in their order."""
        return [one for one in self.observation_keys() if one.client == key.client and one.round < key.round]

    def members(self, key: Key) -> tuple[int, ...]:
        """Whose data an observation is made of; reads the head of its file only."""
        return tuple(files.read_about(self._observation(key))["members"])

    def num_examples(self, key: Key) -> int:
        """How many images are behind an observation; as :meth:`members`."""
        return int(files.read_about(self._observation(key))["num_examples"])

    def task(self, key: Key) -> Task:
        """As :meth:`members`."""
        return _task(files.read_about(self._observation(key))["task"])

    def save_reconstruction(self, attack: str, key: Key, guess: Reconstruction) -> None:
        about = {"outcome": guess.outcome, "loss": repr(guess.loss), "budget": asdict(guess.budget)}
        tensors = {"images": guess.images, "labels": guess.labels}
        files.write_tensors(self._attempt(attack, key, ".safetensors"), tensors, about)

    def save_failure(self, attack: str, key: Key, reason: str) -> None:
        files.write_json(self._attempt(attack, key, ".failed.json"), {"reason": reason})

    def forget_failures(self) -> None:
        """Let failed attacks be tried again."""
        for path in (self.path / "reconstructions").glob("*/*.failed.json"):
            path.unlink()

    def attempted(self, attack: str, key: Key) -> bool:
        return any(self._attempt(attack, key, end).exists() for end in (".safetensors", ".failed.json"))

    def failed(self, attack: str, key: Key) -> bool:
        """Whether all there is of an attack is the reason why it failed."""
        return self.attempted(attack, key) and not self._attempt(attack, key, ".safetensors").exists()

    def result(self, attack: str, key: Key) -> Reconstruction | str | None:
        """A reconstruction, the reason of a failure, or ``None`` where the attack has not ended."""
        if (path := self._attempt(attack, key, ".safetensors")).exists():
            tensors, about = files.read_tensors(path)
            return Reconstruction(
                images=tensors["images"],
                labels=tensors["labels"],
                outcome=Outcome(about["outcome"]),
                loss=float(about["loss"]),
                budget=Budget(**about["budget"]),
            )
        if (path := self._attempt(attack, key, ".failed.json")).exists():
            return str(files.read_json(path)["reason"])
        return None

    def save_checkpoint(self, number: int, state: State, memory: Tensors) -> None:
        """After a round's line is in ``training.jsonl``: a round without its checkpoint is run again."""
        tensors = {
            **_tagged("weight", state.weights),
            **_tagged("buffer", state.buffers),
            **_tagged("memory", memory),
        }
        files.write_tensors(self._checkpoint, tensors, {"round": number, **_names(state.weights)})

    def rounds_done(self) -> int:
        """Of the last checkpoint; reads the head of its file only."""
        return int(files.read_about(self._checkpoint)["round"]) if self._checkpoint.exists() else 0

    def checkpoint(self) -> tuple[int, State, Tensors] | None:
        if not self._checkpoint.exists():
            return None
        tensors, about = files.read_tensors(self._checkpoint)
        weights = _untagged("weight", tensors)
        state = State({name: weights[name] for name in about["weights"]}, _untagged("buffer", tensors))
        return about["round"], state, _untagged("memory", tensors)

    def add_training(self, row: JSON) -> None:
        files.append_line(self.path / "training.jsonl", row)

    def training(self) -> list[JSON]:
        """A row a round, in order; of a round that was run again, the last."""
        rows = {row["round"]: row for row in files.read_lines(self.path / "training.jsonl")}
        return [rows[number] for number in sorted(rows)]

    @property
    def _checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    def _observation(self, key: Key) -> Path:
        return self.path / "observations" / f"{key}.safetensors"

    def _attempt(self, attack: str, key: Key, end: str) -> Path:
        return self.path / "reconstructions" / attack / f"{key}{end}"


def record_to(folder: str | Path, model: str | None = None) -> Callable[[Observation], None]:
    """A sink for ``Intercept``: keeps every observation in ``folder``, to be attacked by ``fl-sim attack FOLDER``.

    Each is on the disk before the round goes on: 5 to 10 ms for the 430,000 weights of ``cnn``.

    Args:
        model: What is trained, ``package.module:factory`` or a registered name. It goes into ``audit.toml``, which is
            written where there is none; without it, that file is yours to write.

    Raises:
        StoreError: Another training was recorded there, whose weights these updates do not belong to.
    """
    place, about = CellStore(Path(folder) / "cells" / "base"), Path(folder) / "audit.toml"
    if found := place.observation_keys():
        raise StoreError(
            f"expected a folder for one training, {folder} has {len(found)} observations of an earlier one: record to "
            "another, or remove it"
        )
    if model is not None and not about.exists():
        files.write(about, f"model = {json.dumps(model)}\n".encode())
    return place.save_observation


def _tagged(tag: str, tensors: Tensors) -> dict[str, Any]:
    return {f"{tag}/{name}": t for name, t in tensors.items()}


def _untagged(tag: str, tensors: Tensors) -> dict[str, Any]:
    return {k.removeprefix(f"{tag}/"): t for k, t in tensors.items() if k.startswith(f"{tag}/")}


def _names(weights: Tensors) -> JSON:
    return {"weights": list(weights)}


def _task(about: JSON) -> Task:
    c, h, w = about["image_shape"]
    return Task(image_shape=(c, h, w), classes=about["classes"], mean=tuple(about["mean"]), std=tuple(about["std"]))
