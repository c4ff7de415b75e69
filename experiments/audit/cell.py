"""An audit as the pipeline sees it: a study of one cell, whose observations are there already."""

from collections.abc import Iterator
from dataclasses import dataclass

from experiments.audit.truth import Recorded
from experiments.build import Cell, attack
from experiments.check import MOST_IMAGES
from experiments.config import Study
from experiments.knowledge import grant
from experiments.parts import AttackPart
from fl_sim.core.errors import ConfigError, FlSimError
from fl_sim.federation.client import ClientJob
from fl_sim.runtime.cells import CellStore

FOLDER = "base"
_AGAIN = ".again"


@dataclass(frozen=True, kw_only=True)
class AuditCell(Cell):
    """The recorded updates in ``place``, and what is known of the truth behind them."""

    place: CellStore

    @classmethod
    def of(cls, study: Study, place: CellStore) -> "AuditCell":
        """
        Raises:
            ConfigError: An attack that the study lists can only refuse these updates; all problems at once.
        """
        cell = cls(name=FOLDER, axes={}, study=study, place=place)
        if problems := list(dict.fromkeys(cell._refusals())):
            raise ConfigError(problems)
        return cell

    def _refusals(self) -> Iterator[str]:
        job, keys = self.job(None), self.place.observation_keys()
        one_of_each = {self.place.num_examples(key): key for key in keys} if self.study.attacks else {}
        if (most := max(one_of_each, default=0)) > MOST_IMAGES:
            yield f"expected at most {MOST_IMAGES} images in an update that is attacked, got {most}: import the others"
            return
        for seen in self.place.observations(one_of_each.values()):
            granted = grant(self, job, seen)
            for part in self.study.attacks:
                try:
                    attack(part).check(granted, job.model())
                except FlSimError as error:
                    yield f"attack {part.key()}: {error}"

    def images(self, data_dir: str | None) -> Recorded:
        del data_dir
        return Recorded(self.place)

    def rounds_done(self, place: CellStore) -> int:
        """All that were recorded, also after the import: nothing is trained here."""
        return max(key.round for key in place.observation_keys())

    def expected_observations(self, data_dir: str | None) -> int:
        del data_dir
        return len(self.place.observation_keys())

    def reported(self) -> list[str]:
        """Second runs are not: they are what first runs are compared with."""
        return [attack for attack in super().reported() if not attack.endswith(_AGAIN)]

    def job(self, data_dir: str | None) -> ClientJob:
        images = self.images(data_dir)
        return ClientJob(
            data=images,
            model=self.model(images.task()),
            protocol=self.protocol(),
            defenses=self.defenses(),
            seed=self.study.seed,
        )

    def guarantee(self, data_dir: str | None) -> None:
        """None: what clients claim to have done is not seen in a record."""


def repeated(part: AttackPart) -> list[AttackPart]:
    """The attack, and the same with draws of its own, by whose agreement a reconstruction is believed or not."""
    return [part, part.model_copy(update={"label": again(part.key())})]


def again(attack: str) -> str:
    """The label of an attack's second run."""
    return f"{attack}{_AGAIN}"
