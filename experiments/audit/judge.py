"""Reconstructions of recorded updates: against the truth where it is known, and always with their confidence."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments.audit.cell import AuditCell, again
from experiments.audit.confidence import confidence
from experiments.audit.truth import Recorded, digests
from experiments.build import Cell
from experiments.judge import Judge, ended, failed
from fl_sim.core.types import Batch, Reconstruction
from fl_sim.metrics.perceptual import Lpips, Unavailable
from fl_sim.runtime.cells import CellStore, Key

JSON = dict[str, Any]


@dataclass(frozen=True)
class AuditJudge(Judge):
    """Judges what can be judged."""

    def ready(self, attack: str) -> bool:
        twice = again(attack) in {part.key() for part in self.cell.study.attacks}
        return super().ready(attack) and (not twice or super().ready(again(attack)))

    def knows(self, key: Key) -> bool:
        assert isinstance(self.data, Recorded)
        return all(self.data.knows(Key(key.round, member)) for member in self.members(key))

    def judge(self, attack: str, key: Key, guess: Reconstruction, lpips: Lpips | Unavailable) -> JSON:
        told = super().judge(attack, key, guess, lpips) if self.knows(key) else _unjudged(guess)
        alone = {"identification_rank": None} if told["candidates"] == 0 else {}
        return told | alone | {"confidence": self.confidence(attack, key, guess)}

    def image_ids(self, key: Key, real: Batch) -> list[int | str]:
        """By their pixels: recorded images have no place in a data set."""
        del key
        return [digest.hex() for digest in digests(real.images)]

    def candidates(self, key: Key) -> Tensor:
        """The line-up: all images that are known of any client, and the public ones."""
        del key
        known = {member for key in self.keys if self.knows(key) for member in self.members(key)}
        return torch.cat([*(self.data.held(client).images for client in sorted(known)), self.public.images])

    def confidence(self, attack: str, key: Key, guess: Reconstruction) -> JSON:
        """See :mod:`experiments.audit.confidence`."""
        second = self.place.result(again(attack), key)
        return confidence(
            self.place.observation(key),
            self.job.model(),
            guess,
            second if isinstance(second, Reconstruction) else None,
            self.unrelated(attack, key),
        )


def judge_of(cell: Cell, data_dir: str | None, place: CellStore) -> Judge:
    """The judge of a cell's reconstructions."""
    kind = AuditJudge if isinstance(cell, AuditCell) else Judge
    return kind(cell, cell.job(data_dir), cell.images(data_dir), place)


def _unjudged(guess: Reconstruction) -> JSON:
    """No metric without the truth; how the attack ended is known all the same."""
    return {**failed(""), **ended(guess), "notes": {"truth": "not given"}}
