"""Figures over images: one that was attacked in several rounds, or under several seeds, counts once."""

from collections.abc import Hashable, Sequence
from statistics import median

from experiments.report.input import Json, judged
from fl_sim.metrics.intervals import mean_interval
from fl_sim.metrics.risk import risk

CONTROLS = ("unrelated_gradient", "mean_image", "nearest_public")


def images_of(record: Json) -> list[Hashable]:
    """The image behind each figure of a record, by the same key wherever else it was attacked.

    Records of earlier versions do not say which images they are of: each of theirs is its own.
    """
    if record.get("image_ids"):
        return list(record["image_ids"])
    place = (record["cell"], record["round"], record["client"])
    return [(*place, i) for i in range(len(record["psnr"] or ()))]


def spread(values: Sequence[float], images: Sequence[Hashable]) -> Json | None:
    """``n`` values of ``images`` different ones, their median, and the mean over images with its 95 % interval."""
    if not values:
        return None
    return {
        "n": len(values),
        "images": len(set(images)),
        "median": median(values),
        **mean_interval(values, images)._asdict(),
    }


def of_metric(records: list[Json], metric: str, part: str | None = None) -> Json | None:
    """Of a metric with a number an image, or of a ``part`` of records that has such metrics; older ones lack some."""
    found: list[float] = []
    images: list[Hashable] = []
    for record in records:
        values = ((record.get(part) or {}) if part else record).get(metric)
        found += values or []
        images += images_of(record) if values else []
    return spread(found, images)


def against(records: list[Json], control: str) -> Json | None:
    """The control's PSNR in dB as :func:`spread`, with ``gain``: the attack's minus the control's, image by image."""
    pairs = [
        (attack, other, image)
        for record in judged(records)
        if (found := (record["controls"] or {}).get(control)) and found["psnr"]
        for attack, other, image in zip(record["psnr"], found["psnr"], images_of(record), strict=True)
    ]
    if not pairs:
        return None
    images = [image for *_, image in pairs]
    gains = [attack - other for attack, other, _ in pairs]
    return {
        **(spread([other for _, other, _ in pairs], images) or {}),
        "gain": mean_interval(gains, images)._asdict(),
        "largest_gain": max(gains),
    }


def paired(records: list[Json], others: list[Json]) -> Json | None:
    """Differences in PSNR, dB, image by image, where both attacks were judged on the same observation."""
    theirs = {(r["cell"], r["round"], r["client"]): r["psnr"] for r in others if r["psnr"]}
    both = [r for r in judged(records) if (r["cell"], r["round"], r["client"]) in theirs]
    differences = [
        mine - other
        for r in both
        for mine, other in zip(r["psnr"], theirs[r["cell"], r["round"], r["client"]], strict=True)
    ]
    return spread(differences, [image for r in both for image in images_of(r)])


def risk_of(records: list[Json]) -> Json | None:
    """Share of images farther than ``delta`` from the original."""
    found = [(d, image) for r in judged(records) for d, image in zip(r["distance"], images_of(r), strict=True)]
    if not found:
        return None
    delta, distances, images = judged(records)[0]["delta"], *map(list, zip(*found, strict=True))
    return {"delta": delta, "n": len(set(images)), **risk(distances, delta, images)._asdict()}


def identified(records: list[Json]) -> Json | None:
    """How many images came first in a line-up, and how many did for the control: by chance and matching.

    An image counts as found where any reconstruction of it is; so does one of the control, which has as many.
    """
    ranked = [(r, r["identification_rank"]) for r in judged(records) if r["identification_rank"]]
    if not ranked:
        return None
    sizes = [record["candidates"] for record, _ in ranked]
    blind = [(r, ranks) for r, _ in ranked if (ranks := _control_ranks(r))]
    return {**_found(ranked), "candidates": [min(sizes), max(sizes)], "control": _found(blind) if blind else None}


def unrecovered(records: list[Json]) -> Json | None:
    """``count`` of ``n`` images that no reconstruction came within ``delta`` of, and the most that one was given."""
    if not (done := judged(records)):
        return None
    near = {i: False for r in done for i in images_of(r)}
    near |= {i: True for r in done for i, d in zip(images_of(r), r["distance"], strict=True) if d <= r["delta"]}
    spent = {n: max((r[n] for r in done if r[n] is not None), default=None) for n in ("iterations", "seconds")}
    return {"count": sum(not one for one in near.values()), "n": len(near), "delta": done[0]["delta"], **spent}


def _control_ranks(record: Json) -> list[int]:
    control = (record["controls"] or {}).get("unrelated_gradient") or {}
    return control.get("identification_rank") or []


def _found(ranked: Sequence[tuple[Json, list[int]]]) -> Json:
    every = [(image, rank) for record, ranks in ranked for image, rank in zip(images_of(record), ranks, strict=True)]
    return {"count": len({image for image, rank in every if rank == 1}), "n": len({image for image, _ in every})}
