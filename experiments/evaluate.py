"""Stage three: each reconstruction against the truth. The only place where the two meet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from experiments.audit.judge import judge_of
from experiments.build import Cell
from experiments.judge import Judge, failed
from experiments.simulate import trained
from experiments.watch import Watch
from fl_sim.metrics.perceptual import Lpips, Unavailable
from fl_sim.runtime.cells import Key
from fl_sim.runtime.store import RunStore
from fl_sim.training.local import single_threaded

JSON = dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """Judges what has not been judged yet, cell by cell, in a fixed order."""

    store: RunStore
    cells: Sequence[Cell]
    data_dir: str | None
    versions: Mapping[str, str]
    watch: Watch

    def __call__(self) -> None:
        for cell in self.cells:
            judge = judge_of(cell, self.data_dir, self.store.cell(cell.folder))
            for attack in cell.reported():
                for key in self._ready(judge, attack):
                    with single_threaded():
                        record = self._record(judge, attack, key)
                    self.store.add_record(record)
                    self.watch.judged()

    def _ready(self, judge: Judge, attack: str) -> list[Key]:
        """What is to be judged: all or nothing of a cell's attack, because one reconstruction is another's control.

        A failure that was judged and has since become a reconstruction is judged again; its last record counts.
        """
        if not trained(judge.place, judge.cell) or not judge.ready(attack):
            return []
        records = self._outcomes
        return [
            key
            for key in judge.keys
            if (found := records.get((judge.cell.name, attack, *key))) is None
            or (found == "failed" and not judge.place.failed(attack, key))
        ]

    @cached_property
    def _outcomes(self) -> dict[tuple[str, str, int, int], str]:
        return {(r["cell"], r["attack"], r["round"], r["client"]): r["outcome"] for r in self.store.records()}

    def _record(self, judge: Judge, attack: str, key: Key) -> JSON:
        result = judge.place.result(attack, key)
        assert result is not None  # it is ready
        cell = judge.cell
        members = judge.members(key)
        about = {
            "study": cell.study.name,
            "cell": cell.name,
            "axes": dict(cell.axes),
            "round": key.round,
            "client": key.client,
            "members": list(members),
            "attack": attack,
            "rounds": judge.rounds(attack, key),
            "defense": cell.defense,
            "seed": cell.study.seed,
        }
        judged = failed(result) if isinstance(result, str) else judge.judge(attack, key, result, self._lpips(cell))
        return about | judged | {"versions": dict(self.versions)}

    def _lpips(self, cell: Cell) -> Lpips | Unavailable:
        return self._net if cell.study.evaluation.lpips else Unavailable("switched off by evaluation.lpips")

    @cached_property
    def _net(self) -> Lpips | Unavailable:
        return Lpips.load(None if self.data_dir is None else Path(self.data_dir))
