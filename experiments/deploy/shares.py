"""Which images each client's machine gets: what it holds by the study, and no more."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from experiments.build import Cell
from experiments.config import digest
from experiments.deploy.place import Place
from fl_sim.core.errors import ConfigError
from fl_sim.data.share import Share, read_share, share_of, write_share


def deal(place: Place, cells: Sequence[Cell], data_dir: str | None) -> None:
    """Write each client's images into its folder, once; cells that divide the data alike share files.

    Raises:
        ConfigError: The study has more clients than there are folders.
    """
    there, most = place.clients(), max(cell.study.federation.clients for cell in cells)
    if most > there:
        raise ConfigError(
            f"expected a study of at most {there} clients, got {most}: run `fl-sim deploy keys --clients {most}` and "
            f"`fl-sim deploy up`, or set federation.clients={there}"
        )
    for cell in cells:
        for client in range(cell.study.federation.clients):
            path = place.client(client) / "data" / _name(cell)
            if not path.exists():
                write_share(path, share_of(cell.data(data_dir), client))


def own(folder: Path, cell: Cell) -> Share:
    """A client's images for a cell, from its own folder."""
    return read_share(folder / "data" / _name(cell))


def _name(cell: Cell) -> str:
    """By all that decides who holds what."""
    data = {key: value for key, value in asdict(cell.data(None)).items() if key != "data_dir"}
    return f"{digest(data)}.npz"
