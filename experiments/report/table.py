"""Records to rows: one for each setting and attack, plain enough for JSON, a terminal and the page."""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

from experiments.report.cost import bytes_up, final_accuracy, spent
from experiments.report.images import (
    CONTROLS,
    against,
    groups_of,
    identified,
    images_of,
    of_metric,
    risk_of,
    spread,
    unrecovered,
)
from experiments.report.input import Json, ReportInput, Setting, judged, records_of, settings, stance


def summarise(report: ReportInput) -> list[Json]:
    """One row for each setting and attack with records; ``None`` stands where nothing could be computed.

    ``stance``: the attack's towards the defense (:data:`experiments.report.input.Stance`). ``psnr`` (dB), ``ssim``,
    ``lpips``, ``label_accuracy``: ``{"n", "images", "median", "mean", "low", "high"}`` of n figures of so many
    different images (for labels: batches); the mean is over images, each with the mean of its figures, and so are the
    bounds of its 95 % interval. ``gifd``: ``ssim`` and ``lpips`` as GIFD's code takes them, where the study asks for
    them. ``trained``: ``psnr``, ``ssim`` and ``lpips`` against the images that data defenses made of the originals,
    which are all that an update can show; ``None`` where there is no such defense. ``confidence``: ``agreement``,
    ``fit``, ``misfit`` and ``labels`` of imported records, which need no truth. ``risk``: the share of images farther
    than ``delta`` from the original, with its interval. ``identified``: images ranked first in any round, of how many,
    among how many others, and those of the unrelated-gradient control. ``controls``: by name, as ``psnr`` with
    ``gain``: the attack minus the control, image by image, in dB. ``bytes_up``: a client's bytes per round.
    ``epsilon``: of the stack's differential privacy over all rounds, of the client that took part most often:
    ``{"protects", "against", "delta", "most"}``, or ``None`` where there is none. ``rounds``: the most observations of
    a client that were fitted together; 1 where each was attacked by itself. ``accuracy``: at the end, mean over seeds.
    ``unrecovered``: ``count`` of ``n`` judged images that no reconstruction came within ``delta`` of, and the most
    ``iterations`` and ``seconds`` that one observation was given.
    """
    return [
        _row(report, setting, attack, records)
        for setting in settings(report)
        for attack, records in records_of(report, setting).items()
    ]


def strongest(rows: list[Json]) -> Json | None:
    """Of a setting's rows the one with the highest mean PSNR, if any was judged."""
    judged_ = [row for row in rows if row["psnr"]]
    return max(judged_, key=lambda row: float(row["psnr"]["mean"]), default=None)


def most_identified(rows: list[Json]) -> Json | None:
    """Of a setting's rows the one that identifies most images, the strongest of them; if any was put to a line-up."""
    seen = [row for row in rows if row["identified"]]
    most = max((int(row["identified"]["count"]) for row in seen), default=0)
    return strongest([row for row in seen if row["identified"]["count"] == most])


def _row(report: ReportInput, setting: Setting, attack: str, records: list[Json]) -> Json:
    done = judged(records)
    return {
        "setting": setting.label,
        "defense": setting.defense,
        "axes": dict(setting.others),
        "attack": attack,
        "rounds": max(len(record.get("rounds") or [0]) for record in records),
        "stance": stance(report, setting, attack),
        "seeds": sorted({record["seed"] for record in records}),
        "observations": len(records),
        "judged": len(done),
        **{name: of_metric(done, name) for name in ("psnr", "ssim", "lpips")},
        "gifd": _inner(done, "gifd", ("ssim", "lpips")),
        "trained": _inner(done, "trained", ("psnr", "ssim", "lpips")),
        "confidence": _confidence(records),
        "label_accuracy": _labels(done),
        "risk": risk_of(done),
        "identified": identified(done),
        "controls": {name: against(done, name) for name in CONTROLS},
        **_price(report, setting),
        "outcomes": dict(Counter(record["outcome"] for record in records)),
        "reasons": dict(Counter(record["reason"] for record in records if record["reason"])),
        **_budget(records),
    }


def _price(report: ReportInput, setting: Setting) -> Json:
    return {
        "accuracy": final_accuracy(report, setting),
        "bytes_up": bytes_up(report, setting),
        "epsilon": spent(report, setting),
    }


def _inner(records: list[Json], part: str, names: Sequence[str]) -> Json | None:
    """Of metrics that stand in a part of the record; older records lack some parts."""
    if not any(record.get(part) for record in records):
        return None
    return {name: of_metric(records, name, part) for name in names}


def _labels(done: list[Json]) -> Json | None:
    """Of a batch each; the same batch in several rounds counts once."""
    known = [record for record in done if record["label_accuracy"] is not None]
    batches = [tuple(images_of(record)) for record in known]
    return spread([record["label_accuracy"] for record in known], batches, groups_of(known))


def _confidence(records: list[Json]) -> Json | None:
    told = [record["confidence"] for record in records if record.get("confidence")]
    if not told:
        return None
    single = {name: [one[name] for one in told if one[name] is not None] for name in ("fit", "misfit", "labels")}
    agreement = [value for one in told for value in one["agreement"] or ()]
    every = {"agreement": agreement, **single}
    return {name: spread(values, *[range(len(values))] * 2) for name, values in every.items()}


def _budget(records: list[Json]) -> Json:
    return {
        "iterations": _total([record["iterations"] for record in records]),
        "seconds": _total([record["seconds"] for record in records]),
        "devices": sorted({record["device"] for record in records if record["device"]}),
        "unrecovered": unrecovered(records),
    }


def _total(values: Iterable[float | None]) -> Json | None:
    known = [value for value in values if value is not None]
    return {"total": sum(known), "median": median(known), "most": max(known)} if known else None
