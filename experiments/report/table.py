"""Records to rows: one for each setting and attack, plain enough for JSON, a terminal and the page."""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

from experiments.report.cost import bytes_up, final_accuracy, spent
from experiments.report.input import (
    Json,
    ReportInput,
    Setting,
    against_control,
    judged,
    per_image,
    records_of,
    settings,
)
from fl_sim.metrics.intervals import mean_interval
from fl_sim.metrics.risk import risk

CONTROLS = ("unrelated_gradient", "mean_image", "nearest_public")


def summarise(report: ReportInput) -> list[Json]:
    """One row for each setting and attack with records; ``None`` stands where nothing could be computed.

    ``psnr`` (dB), ``ssim``, ``lpips``, ``label_accuracy``: ``{"n", "median", "mean", "low", "high"}``, the bounds of
    the mean's 95 % interval. ``gifd``: ``ssim`` and ``lpips`` as GIFD's code takes them, where the study asks for them.
    ``trained``: ``psnr``, ``ssim`` and ``lpips`` against the images that data defenses made of the originals, which are
    all that an update can show; ``None`` where there is no such defense. ``confidence``: ``agreement``, ``fit``,
    ``misfit`` and ``labels`` of imported records, which need no truth. ``risk``: the
    share of images farther than ``delta`` from the original, with its interval.
    ``identified``: images ranked first, of how many, among how many others, and those of the unrelated-gradient
    control. ``controls``: by name, as ``psnr`` with ``gain``: the attack minus the control, image by image, in dB.
    ``bytes_up``: a client's bytes per round. ``epsilon``: of the stack's differential privacy over all rounds, of the
    client that took part most often: ``{"protects", "against", "delta", "most"}``, or ``None`` where there is none.
    ``rounds``: the most observations of a client that were fitted together; 1 where each was attacked by itself.
    ``accuracy``: at the end, mean over seeds. ``unrecovered``: ``count`` of ``n`` judged images that no reconstruction
    came within ``delta`` of, and the most ``iterations`` and ``seconds`` that one observation was given.
    """
    return [
        _row(report, setting, attack, records)
        for setting in settings(report)
        for attack, records in records_of(report, setting).items()
    ]


def strongest(rows: list[Json]) -> Json | None:
    """Of a setting's rows the one with the highest median PSNR, if any was judged."""
    judged_ = [row for row in rows if row["psnr"]]
    return max(judged_, key=lambda row: float(row["psnr"]["median"]), default=None)


def _row(report: ReportInput, setting: Setting, attack: str, records: list[Json]) -> Json:
    done = judged(records)
    return {
        "setting": setting.label,
        "defense": setting.defense,
        "axes": dict(setting.others),
        "attack": attack,
        "rounds": max(len(record.get("rounds") or [0]) for record in records),
        "adaptive": all((cell, attack) in report.adaptive for cell in setting.cells),
        "seeds": sorted({record["seed"] for record in records}),
        "observations": len(records),
        "judged": len(done),
        **{name: _spread(per_image(records, name)) for name in ("psnr", "ssim", "lpips")},
        "gifd": _inner(done, "gifd", ("ssim", "lpips")),
        "trained": _inner(done, "trained", ("psnr", "ssim", "lpips")),
        "confidence": _confidence(records),
        "label_accuracy": _spread([r["label_accuracy"] for r in done if r["label_accuracy"] is not None]),
        "risk": _risk(done),
        "identified": _identified(done),
        "controls": {name: _control(list(against_control(records, name))) for name in CONTROLS},
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


def _spread(values: Sequence[float]) -> Json | None:
    if not values:
        return None
    return {"n": len(values), "median": median(values), **mean_interval(values)._asdict()}


def _inner(done: list[Json], part: str, names: Sequence[str]) -> Json | None:
    """Of metrics that stand in a part of the record; older records lack some parts."""
    found = [record[part] for record in done if record.get(part)]
    if not found:
        return None
    return {name: _spread([v for one in found for v in one[name] or ()]) for name in names}


def _confidence(records: list[Json]) -> Json | None:
    told = [record["confidence"] for record in records if record.get("confidence")]
    if not told:
        return None
    single = {name: [one[name] for one in told if one[name] is not None] for name in ("fit", "misfit", "labels")}
    agreement = [value for one in told for value in one["agreement"] or ()]
    return {"agreement": _spread(agreement), **{name: _spread(values) for name, values in single.items()}}


def _control(pairs: list[tuple[float, float]]) -> Json | None:
    if not pairs:
        return None
    gains = [attack - control for attack, control in pairs]
    spread = _spread([control for _, control in pairs])
    return {**(spread or {}), "gain": mean_interval(gains)._asdict(), "largest_gain": max(gains)}


def _risk(done: list[Json]) -> Json | None:
    distances = [d for record in done for d in record["distance"]]
    if not distances:
        return None
    delta = done[0]["delta"]
    return {"delta": delta, "n": len(distances), **risk(distances, delta)._asdict()}


def _identified(done: list[Json]) -> Json | None:
    """How many true images came first in their line-up, and how many did for the control: by chance and matching."""
    ranked = [(rank, record["candidates"]) for record in done for rank in record["identification_rank"] or ()]
    if not ranked:
        return None
    sizes = [candidates for _, candidates in ranked]
    blind = [rank for record in done for rank in _control_ranks(record)]
    return {
        "count": sum(rank == 1 for rank, _ in ranked),
        "n": len(ranked),
        "candidates": [min(sizes), max(sizes)],
        "control": {"count": sum(rank == 1 for rank in blind), "n": len(blind)} if blind else None,
    }


def _control_ranks(record: Json) -> list[int]:
    control = (record["controls"] or {}).get("unrelated_gradient") or {}
    return control.get("identification_rank") or []


def _budget(records: list[Json]) -> Json:
    return {
        "iterations": _total([record["iterations"] for record in records]),
        "seconds": _total([record["seconds"] for record in records]),
        "devices": sorted({record["device"] for record in records if record["device"]}),
        "unrecovered": _unrecovered(records),
    }


def _unrecovered(records: list[Json]) -> Json | None:
    done = judged(records)
    if not done:
        return None
    spent_ = {
        name: max((r[name] for r in done if r[name] is not None), default=None) for name in ("iterations", "seconds")
    }
    far = [d > r["delta"] for r in done for d in r["distance"]]
    return {"count": sum(far), "n": len(far), "delta": done[0]["delta"], **spent_}


def _total(values: Iterable[float | None]) -> Json | None:
    known = [value for value in values if value is not None]
    return {"total": sum(known), "median": median(known), "most": max(known)} if known else None
