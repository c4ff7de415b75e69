"""The truth, recomputed, and what of it a study grants the adversary. Both are functions of the study alone."""

from dataclasses import replace

import torch

from experiments.build import Cell
from fl_sim.core.contracts import Defense
from fl_sim.core.knowledge import DefenseKnowledge, Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Observation, Tensors
from fl_sim.federation.client import ClientJob, train_once
from fl_sim.training.local import State


def truth(job: ClientJob, members: tuple[int, ...], round_: int) -> Batch:
    """What the observation's members really trained on."""
    size = job.protocol.batch_size if job.protocol.mode == "fedsgd" else None
    batches = [job.data.batch(client, round_, size) for client in members]
    return Batch(torch.cat([b.images for b in batches]), torch.cat([b.labels for b in batches]))


def grant(cell: Cell, job: ClientJob, seen: Observation) -> Observation:
    """``seen`` with what ``[adversary]`` lets it know beyond the wire; labels come sorted, for order is not granted."""
    adversary = cell.study.adversary
    level = DefenseKnowledge[adversary.defense.upper()]
    labels = truth(job, seen.members, seen.round).labels.sort().values if adversary.labels else None
    known = Knowledge(
        labels=labels,
        defense_level=level,
        defense_kinds=tuple(p.name for p in cell.study.defenses) if level >= DefenseKnowledge.KIND else (),
        defenses=job.defenses if level >= DefenseKnowledge.PARAMETERS else None,
        randomness=drawn(job, seen) if level >= DefenseKnowledge.RANDOMNESS else {},
    )
    return replace(seen, knowledge=known)


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
