"""What a report is made from: plain values, so that it can be written from a run folder alone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from defenses.privacy import Guarantee

Json: TypeAlias = dict[str, Any]
Pixels: TypeAlias = NDArray[np.uint8]

UNDEFENDED = "none"
"""The ``defense`` of a cell without one."""

Stance: TypeAlias = Literal["undefended", "naive", "sent", "chosen", "adaptive"]
"""An attack's towards a defense: there is none; it is not used; only what was sent is compared, which needs no grant;
the study gives the attack to this one alone (``only``); it is granted and used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One image, what an attack made of it, and what the same attack made of an unrelated gradient.

    Images are uint8 ``(H, W, C)``, C 1 or 3; ``None`` where there is none. ``psnr`` is in dB, against the original;
    ``trained`` is what data defenses made of it; ``second`` is of the same attack with other draws, in audits. ``rank``
    says why it is shown: ``best``, ``median``, ``worst``.
    """

    cell: str
    attack: str
    round: int
    client: int
    original: Pixels | None
    reconstruction: Pixels | None
    control: Pixels | None
    psnr: float | None
    trained: Pixels | None = None
    second: Pixels | None = None
    rank: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportInput:
    """Everything the report says comes from here.

    Args:
        study: As resolved: name, seed, data, model, federation, defenses, adversary, attacks, evaluation, grid.
        question: What the study asks and what its author expected; may be empty.
        study_hash: Of the resolved study, attacks aside.
        attacks_hash: Of its attacks and the files they use.
        versions: Package to version.
        command: What to type to get this run again.
        created: When, in words: the only time in the report.
        cells: ``{"name", "axes", "defense"}`` each; cells that differ only in the axis ``seed`` are shown as one.
        records: One for each observation and attack; metrics are lists with one number per image, or ``None``.
        training: Cell name to its rounds, from round 0 (before training).
        pictures: Shown in the order given.
        adaptive: Cell and attack, where the attack was granted the defense's parameters and uses them. A setting
            without one is never called protected.
        guarantees: Cell name to the differential privacy of one round, where there is any.
        diagnoses: What an imported record says of itself; see :class:`experiments.audit.diagnosis.Finding`.
    """

    study: Json
    question: str
    study_hash: str
    attacks_hash: str
    versions: dict[str, str]
    command: str
    created: str
    cells: list[Json]
    records: list[Json]
    training: dict[str, list[Json]]
    pictures: list[Picture]
    adaptive: frozenset[tuple[str, str]] = frozenset()
    guarantees: Mapping[str, Guarantee] = field(default_factory=dict)
    diagnoses: list[Json] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Setting:
    """Cells that differ only in their seed: what one line of a figure and one line of a table stand for."""

    defense: str
    others: tuple[tuple[str, str], ...]  # every axis but the defense and the seed, with its value
    cells: tuple[str, ...]

    @property
    def label(self) -> str:
        defense = "no defense" if self.defense == UNDEFENDED else self.defense
        names = [_short(axis) for axis, _ in self.others]
        names = names if len(set(names)) == len(names) else [axis for axis, _ in self.others]
        return ", ".join([defense, *(f"{name} {value}" for name, (_, value) in zip(names, self.others, strict=True))])


def _short(axis: str) -> str:
    """The key of an axis in words, without its section: ``batch size``; of a name the section, ``model``."""
    return axis.removesuffix(".name").rpartition(".")[2].replace("_", " ")


def settings(report: ReportInput) -> list[Setting]:
    """The study's settings in the order of their first cells."""
    cells: dict[tuple[str, tuple[tuple[str, str], ...]], list[str]] = {}
    for cell in report.cells:
        others = tuple((axis, str(value)) for axis, value in cell["axes"].items() if axis not in {"defense", "seed"})
        cells.setdefault((cell["defense"], others), []).append(cell["name"])
    return [Setting(defense, others, tuple(names)) for (defense, others), names in cells.items()]


def records_of(report: ReportInput, setting: Setting) -> dict[str, list[Json]]:
    """The setting's records by attack, attacks in the order the study ran them."""
    found: dict[str, list[Json]] = {attack: [] for attack in attacks(report)}
    for record in report.records:
        if record["cell"] in setting.cells:
            found[record["attack"]].append(record)
    return {attack: records for attack, records in found.items() if records}


def attacks(report: ReportInput) -> list[str]:
    return list(dict.fromkeys(record["attack"] for record in report.records))


def stance(report: ReportInput, setting: Setting, attack: str) -> Stance:
    """What an attack makes of a setting's defense, as far as the study says."""
    if setting.defense == UNDEFENDED:
        return "undefended"
    if all((cell, attack) in report.adaptive for cell in setting.cells):
        return "adaptive"
    part: Json = next((p for p in report.study["attacks"] if (p.get("label") or p["name"]) == attack), {})
    mine = part | (part.get("tuned") or {}).get(setting.defense, {})
    if "observed" in {mine.get("support"), mine.get("match")}:
        return "sent"
    return "chosen" if part.get("only") == [setting.defense] else "naive"


def judged(records: list[Json]) -> list[Json]:
    """Those with metrics; the others ended without an image and say why."""
    return [record for record in records if record["psnr"]]


def per_image(records: list[Json], metric: str) -> list[float]:
    """Every image's value of ``metric``; empty where it was not computed."""
    return [value for record in judged(records) for value in record[metric] or ()]


def against_control(records: list[Json], control: str) -> Iterator[tuple[float, float]]:
    """PSNR in dB of every image that has the control: the attack's, the control's."""
    for record in judged(records):
        found = (record["controls"] or {}).get(control)
        if found and found["psnr"]:
            yield from zip(record["psnr"], found["psnr"], strict=True)
