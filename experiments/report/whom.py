"""From whom: the clients and the classes that lost most, to the strongest attack of each setting."""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.report import units
from experiments.report.axes import CEILING, drawn
from experiments.report.input import Json, ReportInput, settings
from experiments.report.rounds import by_class, by_client
from experiments.report.table import strongest

_SHOWN = 8


class Victim(NamedTuple):
    name: str
    row: Json

    @property
    def bar(self) -> float:
        """Length, in [0, 1] of the width there is."""
        return max(0.0, drawn(self.row["psnr"]["median"]) / CEILING)


class Group(NamedTuple):
    """Clients or classes, the most leaking first; ``hidden`` more are in ``summary.json``."""

    title: str
    shown: list[Victim]
    hidden: int


class Risk(NamedTuple):
    """What one setting's strongest attack took, from whom."""

    setting: str
    attack: str
    groups: list[Group]


def risks(report: ReportInput, rows: list[Json]) -> list[Risk]:
    """One for each setting with a judged image; ``rows`` are the table's."""
    clients, classes = by_client(report), by_class(report)
    several = len({row["seed"] for row in clients}) > 1
    found = []
    for setting in settings(report):
        if most := strongest([row for row in rows if row["setting"] == setting.label]):
            of = [Victim(units.clients(row, seed=several), row) for row in _taken(most, clients)]
            kinds = [Victim(str(row["class"]), row) for row in _taken(most, classes)]
            kinds = [] if _same(of, kinds) else kinds
            groups = [_group(title, all_) for title, all_ in (("Client", of), ("Class", kinds)) if all_]
            found.append(Risk(setting.label, most["attack"], groups))
    return found


def _taken(most: Json, table: list[Json]) -> list[Json]:
    return [row for row in table if (row["setting"], row["attack"]) == (most["setting"], most["attack"])]


def _same(clients: Sequence[Victim], classes: Sequence[Victim]) -> bool:
    """Whether every client's images are all those of a class: the second table would repeat the first."""
    figures = [[(one.row["psnr"]["n"], one.row["psnr"]["median"]) for one in group] for group in (clients, classes)]
    return figures[0] == figures[1]


def _group(title: str, victims: Sequence[Victim]) -> Group:
    return Group(title, list(victims[:_SHOWN]), max(0, len(victims) - _SHOWN))
