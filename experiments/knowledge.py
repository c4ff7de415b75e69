"""The truth, recomputed, and what of it a study grants the adversary. Both are functions of the study alone."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from experiments.build import Cell
from fl_sim.core.contracts import DataDefense, Defense, kind_of
from fl_sim.core.knowledge import DefenseKnowledge, Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Observation, Task, Tensors, Update
from fl_sim.federation.client import ClientJob, held, train_once, transformed
from fl_sim.training.local import State, state_of


def truth(job: ClientJob, members: tuple[int, ...], round_: int) -> Batch:
    """The observation's members' own images, before any defense."""
    batches = [held(job, client, round_) for client in members]
    return Batch(torch.cat([b.images for b in batches]), torch.cat([b.labels for b in batches]))


def trained_on(job: ClientJob, members: tuple[int, ...], round_: int) -> Tensor | None:
    """The images that data defenses made of :func:`truth`, as many of them; ``None`` where there is no such defense."""
    if not any(isinstance(defense, DataDefense) for defense in job.defenses):
        return None
    batches = [transformed(job, held(job, client, round_), client, round_) for client in members]
    return torch.cat([b.images for b in batches])


def empty_observations(cell: Cell, data_dir: str | None) -> Iterator[tuple[Observation, nn.Module]]:
    """What attacks on this cell will be given, but for its figures: updates of zeros, a fresh model.

    One for each number of images behind an observation.
    """
    federation, adversary = cell.study.federation, cell.study.adversary
    data, job = cell.data(data_dir), cell.job(data_dir)
    size = cell.protocol().round_size
    groups: list[tuple[int, ...]] = [(client,) for client in adversary.clients or range(federation.clients)]
    if adversary.view == "aggregate":
        groups = [tuple(range(federation.cohort or federation.clients))]
    counts = {sum(len(data.used(client, 1, size)) for client in members): members for members in groups}
    for count, members in counts.items():
        model = job.model()
        seen = _empty(job, data.task(), members, count)
        seen = seen if adversary.protocol else replace(seen, protocol=None)
        yield replace(seen, knowledge=_known(cell, job, torch.zeros(count, dtype=torch.int64), {})), model


def _empty(job: ClientJob, task: Task, members: tuple[int, ...], images: int) -> Observation:
    state, protocol = state_of(job.model()), job.protocol
    return Observation(
        round=1,
        client=members[0],
        members=members,
        task=task,
        broadcast=state.weights,
        buffers=state.buffers,
        update=Update(
            delta={name: torch.zeros_like(t) for name, t in state.weights.items()},
            num_examples=images,
            kind="gradient" if protocol.mode == "fedsgd" else "delta",
        ),
        protocol=protocol,
    )


def grant(cell: Cell, job: ClientJob, seen: Observation) -> Observation:
    """``seen`` with what ``[adversary]`` lets it know beyond the wire; labels come sorted, for order is not granted."""
    randomness = drawn(job, seen) if cell.study.adversary.defense == "randomness" else {}
    granted = cell.study.adversary.labels
    labels = truth(job, seen.members, seen.round).labels.sort().values if granted else None
    return replace(seen, knowledge=_known(cell, job, labels, randomness))


def _known(cell: Cell, job: ClientJob, labels: Tensor | None, randomness: Tensors) -> Knowledge:
    """Of these facts, those granted."""
    adversary = cell.study.adversary
    level = DefenseKnowledge[adversary.defense.upper()]
    return Knowledge(
        labels=labels if adversary.labels else None,
        defense_level=level,
        defense_kinds=tuple(map(kind_of, job.defenses)) if level >= DefenseKnowledge.KIND else None,
        defenses=job.defenses if level >= DefenseKnowledge.PARAMETERS else None,
        randomness=randomness if level >= DefenseKnowledge.RANDOMNESS else {},
    )


def drawn(job: ClientJob, seen: Observation) -> Tensors:
    """What the update defenses of a single client drew, as ``place/name``: the round is run again."""
    if not any(d.leaks for d in job.update_defenses) or len(seen.members) > 1:
        return {}
    update, _ = train_once(job, State(seen.broadcast, seen.buffers), seen.client, seen.round)
    found: Tensors = {}
    for place, defense in enumerate(job.defenses):
        if isinstance(defense, Defense):
            protected = defense.protect(update, derive(job.seed, "defense", seen.round, seen.client, place))
            update = protected.update
            found = {**found, **{f"{place}/{name}": t for name, t in protected.randomness.items()}}
    return found
