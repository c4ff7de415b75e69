"""What the study grants its server, by the threat models A to H of Carletti et al. (SoK, USENIX Security 2025).

A letter there is a set of capabilities. What this tool can grant beside them (labels, the defense) has no letter.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from experiments.report.input import Json

NAMES: Mapping[str, str] = MappingProxyType(
    {
        "A": "eavesdropper",
        "B": "informed eavesdropper",
        "C": "parameter-aware eavesdropper",
        "D": "data-enhanced eavesdropper",
        "E": "statistical-informed eavesdropper",
        "F": "active manipulator",
        "G": "data-enhanced manipulator",
        "H": "active client manipulator",
    }
)

_VIEWS = {"client": "client by client", "aggregate": "summed over several clients"}


class Capability(NamedTuple):
    """One column of the source's table, or one of ours; ``letters`` are empty for ours."""

    name: str
    letters: str
    granted: str  # "yes", "no", "in some settings"
    here: str


class Capabilities(NamedTuple):
    """``letter``: of the weakest model that has all that is granted."""

    letter: str
    name: str
    lacks: list[str]
    beyond: list[str]
    table: list[Capability]

    def as_json(self) -> Json:
        return {**self._asdict(), "table": [row._asdict() for row in self.table]}


def capabilities(study: Json) -> Capabilities:
    """What a study's server has, whatever its grid varies counted where any setting grants it."""
    table = list(_table(study))
    granted = [row for row in table if row.granted != "no"]
    letter = next(one for one in NAMES if all(one in row.letters for row in granted if row.letters))
    lacks = [row.name for row in table if letter in row.letters and row.granted == "no"]
    beyond = [f"{row.name} ({row.here})" for row in granted if not row.letters]
    return Capabilities(letter, NAMES[letter], lacks, beyond, table)


def _table(study: Json) -> Iterator[Capability]:
    seen = ", or ".join(_VIEWS.get(view, str(view)) for view in values(study, "adversary", "view"))
    basics = "pixel range, normalisation, smoothness of images"
    yield Capability("model updates", "ABCDEFGH", "yes", f"as received{', ' * bool(seen)}{seen}")
    yield Capability("basic knowledge", "BCDEFGH", "yes", basics)
    yield _one("training details", "CDEFGH", values(study, "adversary", "protocol"), "learning rate, steps, batch size")
    learned = sorted({name for part in study.get("attacks", ()) for name in _learned(part)})
    yield _one("surrogate data", "DEGH", [bool(learned)], f"priors fitted to public images: {', '.join(learned)}")
    statistics = [value == "train" for value in values(study, "federation", "batchnorm")]
    yield _one("client data statistics", "E", statistics, "batch-norm statistics, sent beside the update")
    yield Capability("active manipulation", "FGH", "no", "the server follows the protocol")
    yield Capability("client selection", "H", "no", "no sybil clients")
    yield _one("labels", "", values(study, "adversary", "labels"), "true labels of the batch, order aside")
    yield _defense(values(study, "adversary", "defense"))


def _learned(argument: object, key: str = "") -> Iterator[str]:
    """Files of priors among an attack's arguments: generators by any name, densities by their suffix."""
    if isinstance(argument, str):
        if key == "generator" or argument.endswith(".safetensors"):
            yield argument.rpartition("/")[2]
    elif isinstance(argument, dict):
        for name, below in argument.items():
            yield from _learned(below, name)
    elif isinstance(argument, list | tuple):
        for below in argument:
            yield from _learned(below)


def _one(name: str, letters: str, found: list[Any], here: str) -> Capability:
    granted = "yes" if all(found) and found else "in some settings" if any(found) else "no"
    return Capability(name, letters, granted, here if any(found) else "not granted")


def _defense(found: list[Any]) -> Capability:
    levels = [str(level) for level in found if level != "unknown"]
    granted = "no" if not levels else "yes" if len(levels) == len(found) else "in some settings"
    return Capability("the defense", "", granted, " or ".join(levels) or "not granted")


def values(study: Json, section: str, key: str) -> list[Any]:
    """What the settings have there: the grid's values, else the one that all have; none where nothing is said."""
    varied = (study.get("grid") or {}).get(f"{section}.{key}")
    single = (study.get(section) or {}).get(key)
    return list(varied) if varied else [] if single is None else [single]
