"""Leakage round by round, and whom it strikes: by client, by class."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from statistics import fmean, median
from typing import Any, NamedTuple

from experiments.report.input import Json, ReportInput, judged, records_of, settings
from fl_sim.metrics.intervals import mean_interval


class Judged(NamedTuple):
    """An image of a record, as far as these tables need it."""

    round: int
    source: tuple[int, tuple[int, ...]]  # seed and clients: those of two seeds hold different images
    label: int | None
    psnr: float
    rank: int | None
    control: float | None


def by_round(report: ReportInput) -> list[Json]:
    """A row for each setting, attack and attacked round in which an image was judged.

    ``psnr`` (dB): ``{"n", "sources", "median", "mean", "low", "high", "largest"}`` of n images. The bounds are of the
    mean's 95 % interval over ``sources``, the clients of all seeds, each of which counts once, for images of one client
    are not independent; ``None`` with one source. ``control``: mean PSNR of the unrelated-gradient control, in dB.
    ``identified``: ``{"count", "n"}``. ``control`` and ``identified`` are ``None`` where they were not measured.
    """
    return [
        {**about, "round": number, **_summary(mine)}
        for about, images in _by_attack(report)
        for number, mine in sorted(_grouped(images, lambda image: image.round).items())
    ]


def by_client(report: ReportInput) -> list[Json]:
    """A row for each setting, attack, seed and client, the most leaking first; otherwise as :func:`by_round`.

    ``clients``: one, or all those whose sum was seen.
    """
    return [
        {**about, "seed": seed, "clients": list(members), **found}
        for about, images in _by_attack(report)
        for (seed, members), found in _ranked(images, lambda image: image.source)
    ]


def by_class(report: ReportInput) -> list[Json]:
    """A row for each setting, attack and true class of an image, the most leaking first; otherwise as :func:`by_round`.

    Nothing of records that do not name classes: they were judged by an earlier version.
    """
    return [
        {**about, "class": label, **found}
        for about, images in _by_attack(report)
        for label, found in _ranked([i for i in images if i.label is not None], lambda image: image.label)
    ]


def _by_attack(report: ReportInput) -> Iterator[tuple[Json, list[Judged]]]:
    for setting in settings(report):
        for attack, records in records_of(report, setting).items():
            yield {"setting": setting.label, "attack": attack}, [i for r in judged(records) for i in _images(r)]


def _images(record: Json) -> Iterator[Judged]:
    control = ((record["controls"] or {}).get("unrelated_gradient") or {}).get("psnr")
    source = (record["seed"], tuple(record["members"]))
    nothing = [None] * len(record["psnr"])
    columns = [record.get("labels") or nothing, record["identification_rank"] or nothing, control or nothing]
    for psnr, label, rank, blind in zip(record["psnr"], *columns, strict=True):
        yield Judged(record["round"], source, label, psnr, rank, blind)


def _grouped(images: Sequence[Judged], key: Callable[[Judged], Any]) -> dict[Any, list[Judged]]:
    found: dict[Hashable, list[Judged]] = {}
    for image in images:
        found.setdefault(key(image), []).append(image)
    return found


def _ranked(images: Sequence[Judged], key: Callable[[Judged], Any]) -> list[tuple[Any, Json]]:
    """By median PSNR, highest first; ties by the key."""
    found = [(group, _summary(mine)) for group, mine in sorted(_grouped(images, key).items())]
    return sorted(found, key=lambda pair: -float(pair[1]["psnr"]["median"]))


def _summary(images: list[Judged]) -> Json:
    psnr, sources = [i.psnr for i in images], [i.source for i in images]
    blind = [i.control for i in images if i.control is not None]
    ranks = [i.rank for i in images if i.rank is not None]
    return {
        "psnr": {
            "n": len(psnr),
            "sources": len(set(sources)),
            "median": median(psnr),
            **mean_interval(psnr, sources)._asdict(),
            "largest": max(psnr),
        },
        "control": fmean(blind) if blind else None,
        "identified": {"count": sum(rank == 1 for rank in ranks), "n": len(ranks)} if ranks else None,
    }
