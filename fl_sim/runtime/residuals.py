"""What clients keep from one round for the next: the part of an update that their defense did not send."""

from dataclasses import dataclass
from pathlib import Path

from fl_sim.core.types import Tensors
from fl_sim.runtime import files


@dataclass(frozen=True)
class Residuals:
    """A folder with a file for each client, place of a defense and round.

    A round that is run again after a crash finds what the first attempt found: what is kept is read by round, and three
    rounds are kept, for a checkpoint may be one behind.
    """

    folder: Path

    def before(self, client: int, place: int, round_: int) -> Tensors:
        """Of the last round before ``round_`` in which the client took part; empty where there is none."""
        earlier = [path for path in self._kept(client, place) if _round(path) < round_]
        return files.read_tensors(earlier[-1])[0] if earlier else {}

    def keep(self, client: int, place: int, round_: int, residual: Tensors) -> None:
        """Those of rounds before the last three are forgotten."""
        files.write_tensors(self.folder / f"c{client:04d}-d{place}-r{round_:04d}.safetensors", residual, {})
        for path in [path for path in self._kept(client, place) if _round(path) <= round_][:-3]:
            path.unlink(missing_ok=True)

    def _kept(self, client: int, place: int) -> list[Path]:
        return sorted(self.folder.glob(f"c{client:04d}-d{place}-r*.safetensors"), key=_round)


def _round(path: Path) -> int:
    return int(path.stem.rpartition("-r")[2])
