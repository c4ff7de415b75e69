"""Was a prior fitted to what it is to reconstruct? Files of ``fl-sim train-prior`` say which images they saw."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.build import Cell
from experiments.parts import AttackPart
from fl_sim.core.errors import ConfigError, StoreError
from fl_sim.data.domains import BASES
from fl_sim.runtime import files


def refuse_overlap(cell: Cell, part: AttackPart, data_dir: str | None) -> None:
    """An attack that has seen the clients' images recalls them; that is no reconstruction.

    Raises:
        ConfigError: A file of the attack was fitted to images of the split that clients hold.
    """
    data, split = cell.data(data_dir).dataset(), cell.study.data.split
    for path in sorted(part.files()):
        about = _about(Path(path))
        seen = str(about.get("split") or about.get("made", {}).get("split", ""))
        whose = BASES.get(name := str(about.get("data")), name)
        if (whose, about.get("origin"), seen.partition("[")[0]) == (
            BASES.get(data.name, data.name),
            data.origin,
            split,
        ):
            other = "test" if split == "train" else "train"
            raise ConfigError(
                f"attack {part.key()}: expected {path} to have seen no image that a client may hold, but it was "
                f'fitted to {name} ({seen}): set data.split = "{other}", or fit one with --split {other}'
            )


def _about(path: Path) -> Mapping[str, Any]:
    """What a file says of itself; nothing where it is of another kind."""
    try:
        return files.read_about(path)
    except StoreError:
        return {}
