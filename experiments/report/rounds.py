"""Leakage round by round, and whom it strikes: by client, by class."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from statistics import fmean, median
from typing import Any, NamedTuple

from experiments.report.images import CONTROLS
from experiments.report.input import Json, ReportInput, judged, records_of, settings
from fl_sim.metrics.intervals import mean_interval


class Judged(NamedTuple):
    """An image of a record, as far as these tables need it."""

    round: int
    source: tuple[int, tuple[int, ...]]  # seed and clients: those of two seeds hold different images
    label: int | None
    psnr: float
    rank: int | None
    controls: Mapping[str, float]


def by_round(report: ReportInput) -> list[Json]:
    """A row for each setting, attack and attacked round in which an image was judged.

    ``psnr`` (dB): ``{"n", "sources", "median", "mean", "low", "high", "largest"}`` of n images. The bounds are of the
    mean's 95 % interval over ``sources``, the clients of all seeds, each of which counts once, for images of one client
    are not independent; ``None`` with one source. ``controls``: by name ``mean``, its mean PSNR in dB, and ``gain``,
    the attack's minus the control's, image by image. ``identified``: ``{"count", "n"}``. A control and ``identified``
    are ``None`` where they were not measured.
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
    controls = {name: one["psnr"] for name, one in (record["controls"] or {}).items() if one and one["psnr"]}
    source = (record["seed"], tuple(record["members"]))
    nothing = [None] * len(record["psnr"])
    columns = [record.get("labels") or nothing, record["identification_rank"] or nothing]
    for place, (psnr, label, rank) in enumerate(zip(record["psnr"], *columns, strict=True)):
        known = {name: values[place] for name, values in controls.items()}
        yield Judged(record["round"], source, label, psnr, rank, known)


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
    ranks = [i.rank for i in images if i.rank is not None]
    return {
        "psnr": {
            "n": len(psnr),
            "sources": len(set(sources)),
            "median": median(psnr),
            **mean_interval(psnr, sources)._asdict(),
            "largest": max(psnr),
        },
        "controls": {name: _control(images, name) for name in CONTROLS},
        "identified": {"count": sum(rank == 1 for rank in ranks), "n": len(ranks)} if ranks else None,
    }


def _control(images: list[Judged], name: str) -> Json | None:
    known = [image for image in images if name in image.controls]
    if not known:
        return None
    gains = [image.psnr - image.controls[name] for image in known]
    return {
        "mean": fmean(image.controls[name] for image in known),
        "gain": mean_interval(gains, [image.source for image in known])._asdict(),
    }
