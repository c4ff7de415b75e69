"""What was attacked: which images, held by whom, behind how much training, in which net."""

from collections.abc import Hashable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

from experiments.report import units
from experiments.report.images import images_of
from experiments.report.input import Json, ReportInput, judged
from experiments.report.letters import values
from fl_sim.core.types import Protocol


class Fact(NamedTuple):
    """A line of a table of facts."""

    title: str
    value: str
    meaning: str


def scope(report: ReportInput) -> list[Fact]:
    """As far as the study and the judged records say; a grid's values stand beside one another."""
    found = [_data(report.study), _net(report.study), _training(report.study), *_behind(report), *_attacked(report)]
    return [fact for fact in found if fact.value]


def _data(study: Json) -> Fact:
    split, held = _words(study, "data", "split"), _words(study, "data", "per_client")
    shares = _list([_partition(one) for one in values(study, "data", "partition") if one], " or ")
    said = [f"clients hold images of its {split} split"] if split else []
    said += [f"at most {held} each"] if held else []
    said += [f"divided: {shares}"] if shares else []
    return Fact("Data", _words(study, "data", "name"), "; ".join(said))


def _partition(partition: Json) -> str:
    told = {key: value for key, value in partition.items() if key not in {"kind", "sizes"}}
    sizes = [_sizes(partition["sizes"])] if partition.get("sizes") else []
    return _list([partition.get("kind", ""), *sizes, *(f"{key} {value}" for key, value in told.items())])


def _sizes(sizes: Sequence[int]) -> str:
    """``8 clients with 1, 6 with 1000``: images."""
    first, *others = [f"{sum(one == size for one in sizes)} with {units.count(size)}" for size in dict.fromkeys(sizes)]
    return ", ".join([first.replace(" with", " clients with"), *others])


def _net(study: Json) -> Fact:
    varied = (study.get("grid") or {}).get("model") or values(study, "model", "name")
    names = [one if isinstance(one, str) else one["name"] for one in varied]
    options = {
        key: value for key, value in (study.get("model") or {}).items() if key != "name" and value not in ({}, None)
    }
    return Fact("Net", _list(names), _list([f"{key} {value}" for key, value in options.items()]))


def _training(study: Json) -> Fact:
    parts = {
        "clients": "{} clients",
        "cohort": "{} of them in a round",
        "rounds": "{} rounds",
        "strategy": "{}",
        "batch_size": "batches of {}",
        "local_epochs": "{} local epochs",
        "learning_rate": "learning rate {}",
        "momentum": "momentum {}",
        "batchnorm": "batch norm in {} mode",
    }
    told = {key: words.format(found) for key, words in parts.items() if (found := _words(study, "federation", key))}
    return Fact(
        "Training",
        _list([told[key] for key in ("clients", "rounds") if key in told]),
        _list([words for key, words in told.items() if key not in {"clients", "rounds"}]),
    )


def _behind(report: ReportInput) -> Iterator[Fact]:
    """How many images and steps an attacked update sums up."""
    counts = sorted({len(record["psnr"]) for record in judged(report.records)})
    if not counts:
        return
    steps = sorted({protocol.steps(count) for protocol in _protocols(report.study) for count in counts})
    images = "1 image" if counts == [1] else f"{_range(counts)} images"
    local = f"{_range(steps)} local step{'s' * (steps != [1])}" if steps else ""
    if values(report.study, "federation", "mode") == ["fedsgd"]:
        local = "one gradient"
    yield Fact("Behind an attacked update", images, local)


def _protocols(study: Json) -> Iterator[Protocol]:
    """Every one of the grid that is whole: imported records may not tell all of it."""
    names = ("mode", "learning_rate", "local_epochs", "batch_size", "sampling")
    found = {name: values(study, "federation", name) for name in names}
    if found["mode"] and found["batch_size"]:
        known = {name: every for name, every in found.items() if every}
        yield from (Protocol(**dict(zip(known, one, strict=True))) for one in product(*known.values()))


def _attacked(report: ReportInput) -> Iterator[Fact]:
    """How many images, and whether they come again."""
    seen: dict[tuple[int, Hashable], set[int]] = {}
    for record in judged(report.records):
        for image in images_of(record):
            seen.setdefault((record["seed"], image), set()).add(record["round"])
    if not seen:
        return
    rounds = {record["round"] for record in judged(report.records)}
    often = sorted(map(len, seen.values()))
    if len(rounds) == 1:
        meaning = "in one round"
    elif often[0] == len(rounds):
        meaning = f"the same in each of {len(rounds)} rounds"
    elif often[-1] == 1:
        meaning = f"others in each of {len(rounds)} rounds"
    else:
        meaning = f"in {len(rounds)} rounds, one image in {_range([often[0], often[-1]])} of them"
    seeds = units.things(len({seed for seed, _ in seen}), "seed")
    yield Fact("Attacked", units.things(len(seen), "image"), f"{meaning}, {seeds}")


def _words(study: Json, section: str, key: str) -> str:
    """Values that change nothing are left out."""
    plain = {"local_epochs": 1, "momentum": 0.0, "batchnorm": "eval"}
    found = values(study, section, key)
    return "" if found == [plain.get(key)] else _list(found, " or ")


def _list(found: Sequence[Any], between: str = ", ") -> str:
    return between.join(map(str, found))


def _range(numbers: Sequence[int]) -> str:
    return units.between([numbers[0], numbers[-1]])
