"""Figures over images, with intervals over what is independent: updates that share no image."""

from collections.abc import Hashable, Sequence
from statistics import fmean, median

from experiments.report.input import Json, judged
from fl_sim.metrics.intervals import group_means, mean_interval
from fl_sim.metrics.risk import risk

CONTROLS = ("unrelated_gradient", "mean_image", "nearest_public")
_DRAWS = 9999  # of the permutation test, where enumerating would be longer


def images_of(record: Json) -> list[Hashable]:
    """The image behind each figure of a record, by the same key wherever else its seed's clients were attacked.

    Records of earlier versions do not say which images they are of: each of theirs is its own.
    """
    known = record.get("image_ids")
    if known:
        return [(record["seed"], image) for image in known]
    place = (record["cell"], record["round"], record["client"])
    return [(*place, i) for i in range(len(record["psnr"] or ()))]


def groups_of(records: list[Json]) -> list[Hashable]:
    """For each record the group it is in: updates that have an image in common are one, directly or by others.

    The images of an update have one gradient, and an image that is attacked in several rounds stays itself: neither
    is more than one draw. A group is named by one of its images.
    """
    head: dict[Hashable, Hashable] = {}

    def find(image: Hashable) -> Hashable:
        while (above := head.setdefault(image, image)) != image:
            image = above
        return image

    for record in records:
        first, *others = images_of(record) or [None]
        for image in others:
            head[find(image)] = find(first)
    return [find(next(iter(images_of(record)), None)) for record in records]


def spread(values: Sequence[float], images: Sequence[Hashable], groups: Sequence[Hashable]) -> Json | None:
    """``n`` values of so many ``images`` in so many ``groups``; their median; the groups' mean with its interval."""
    if not values:
        return None
    return {
        "n": len(values),
        "images": len(set(images)),
        "groups": len(set(groups)),
        "median": median(values),
        **mean_interval(values, groups)._asdict(),
    }


class Figures:
    """Values, each of an image of a group."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.images: list[Hashable] = []
        self.groups: list[Hashable] = []

    def add(self, record: Json, group: Hashable, values: Sequence[float]) -> None:
        self.values += values
        self.images += images_of(record)
        self.groups += [group] * len(values)

    def spread(self) -> Json | None:
        return spread(self.values, self.images, self.groups)


def of_metric(records: list[Json], metric: str, part: str | None = None) -> Json | None:
    """Of a metric with a number an image, or of a ``part`` of records that has such metrics; older ones lack some."""
    found = Figures()
    for record, group in zip(records, groups_of(records), strict=True):
        values = ((record.get(part) or {}) if part else record).get(metric)
        if values:
            found.add(record, group, values)
    return found.spread()


def against(records: list[Json], control: str) -> Json | None:
    """The control's PSNR in dB as :func:`spread`, with ``gain``: the attack's minus the control's, image by image."""
    controls, gains = Figures(), Figures()
    for record, group in zip(records, groups_of(records), strict=True):
        found = (record["controls"] or {}).get(control)
        if record["psnr"] and found and found["psnr"]:
            controls.add(record, group, found["psnr"])
            gains.add(record, group, [mine - its for mine, its in zip(record["psnr"], found["psnr"], strict=True)])
    if (told := controls.spread()) is None:
        return None
    gain = mean_interval(gains.values, gains.groups)._asdict()
    return {**told, "gain": gain, "largest_gain": max(gains.values)}


def paired(records: list[Json], others: list[Json]) -> Json | None:
    """Differences in PSNR, dB, image by image, where both attacks were judged on the same observation."""
    theirs = {(r["cell"], r["round"], r["client"]): r["psnr"] for r in others if r["psnr"]}
    found = Figures()
    for record, group in zip(records, groups_of(records), strict=True):
        if record["psnr"] and (its := theirs.get((record["cell"], record["round"], record["client"]))):
            found.add(record, group, [mine - other for mine, other in zip(record["psnr"], its, strict=True)])
    return found.spread()


def risk_of(records: list[Json]) -> Json | None:
    """Share of images farther than ``delta`` from the original."""
    if not (done := judged(records)):
        return None
    found = Figures()
    for record, group in zip(done, groups_of(done), strict=True):
        found.add(record, group, record["distance"])
    delta = done[0]["delta"]
    return {"delta": delta, "n": len(set(found.groups)), **risk(found.values, delta, found.groups)._asdict()}


def identified(records: list[Json]) -> Json | None:
    """How many images came first in a line-up, and how many did for the control: by chance and matching.

    An image counts as found where any reconstruction of it is; so does one of the control, which has as many. ``p``:
    that the attack finds no more than its control, by flipping signs of the groups' differences in the share found.
    """
    ranked = [r for r in judged(records) if r["identification_rank"]]
    if not ranked:
        return None
    sizes = [record["candidates"] for record in ranked]
    blind = [r for r in ranked if _control_ranks(r)]
    return {
        **_found(ranked, [r["identification_rank"] for r in ranked]),
        "candidates": [min(sizes), max(sizes)],
        "control": _found(blind, [_control_ranks(r) for r in blind]) if blind else None,
        "p": _flipped(blind) if blind else None,
    }


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


def _found(records: list[Json], ranks: list[list[int]]) -> Json:
    every = [
        pair for record, mine in zip(records, ranks, strict=True) for pair in zip(images_of(record), mine, strict=True)
    ]
    return {"count": len({image for image, rank in every if rank == 1}), "n": len({image for image, _ in every})}


def _flipped(records: list[Json]) -> float | None:
    """One-sided; exact where groups are few enough to try every sign. ``None``: one group has nothing to flip."""
    from scipy.stats import permutation_test

    found = Figures()
    for record, group in zip(records, groups_of(records), strict=True):
        pairs = zip(record["identification_rank"], _control_ranks(record), strict=True)
        found.add(record, group, [float(mine == 1) - float(its == 1) for mine, its in pairs])
    each = group_means(found.values, found.groups)
    if len(each) < 2:
        return None
    flips = permutation_test(
        (each,), fmean, permutation_type="samples", alternative="greater", n_resamples=_DRAWS, rng=0
    )
    return float(flips.pvalue)
