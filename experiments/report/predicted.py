"""Predicted risk beside measured leakage: whether what costs no attack puts records in the attacks' order."""

from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

from experiments.report.input import Json, ReportInput, attacks, judged, records_of, settings
from fl_sim.metrics.ranks import rank_correlation

ALL = "all settings"
MEANINGS = {
    "k15": "the PSNR that the best possible guess would have if the network were linear around the record, images were "
    "Gaussian with the covariance of public ones, and the noise were Gaussian of the defense's variance",
    "i2f": "the PSNR of the record moved to where least squares would go after all that the defense did to this very "
    "update (inversion influence function, arXiv 2309.13016): no prior, so it is low where few pixels are told",
    "i2f_bound": "the most that PSNR could be, by the largest eigenvalue alone: the same paper's bound",
    "snr": "squared norm of the record's part of the update over the expected one of the noise, in dB; no PSNR",
}
"""Predictor to what it says, in words."""


class Pair(NamedTuple):
    """An image's predicted and measured figure, both in dB."""

    source: tuple[int, tuple[int, ...]]  # seed and clients
    predicted: float
    psnr: float


def predicted_risk(report: ReportInput) -> list[Json]:
    """A row for each setting, attack and predictor of ``evaluation.risk`` that said something of a judged image.

    ``n`` images of ``sources`` clients of all seeds. ``predicted``: the median figure in dB. ``correlation``: ``value``
    of Spearman's between it and the measured PSNR, ``low`` and ``high`` of its 95 % interval, by a bootstrap over
    sources; see :func:`fl_sim.metrics.ranks.rank_correlation`. Where several settings have such rows, others follow
    whose setting is ``all settings``: there the strength of the defenses counts as well.
    """
    found = [row for setting in settings(report) for row in _rows(setting.label, records_of(report, setting))]
    if len({row["setting"] for row in found}) > 1:
        found += _rows(
            ALL, {attack: [r for r in report.records if r["attack"] == attack] for attack in attacks(report)}
        )
    return found


def silent(report: ReportInput) -> list[tuple[str, str, str]]:
    """Setting, predictor and reason, where a predictor said nothing of some record."""
    found = [
        (setting.label, name, record["notes"][name])
        for setting in settings(report)
        for records in records_of(report, setting).values()
        for record in judged(records)
        for name, told in (record.get("predicted") or {}).items()
        if told is None
    ]
    return list(dict.fromkeys(found))


def _rows(setting: str, by_attack: dict[str, list[Json]]) -> Iterator[Json]:
    for attack, records in by_attack.items():
        done = judged(records)
        for name in dict.fromkeys(name for record in done for name in record.get("predicted") or ()):
            if pairs := [pair for record in done for pair in _pairs(record, name)]:
                yield {"setting": setting, "attack": attack, "predictor": name, **_summary(pairs)}


def _pairs(record: Json, name: str) -> Iterator[Pair]:
    told = (record.get("predicted") or {}).get(name)
    source = (record["seed"], tuple(record["members"]))
    for predicted, psnr in zip(told, record["psnr"], strict=True) if told else ():
        yield Pair(source, predicted, psnr)


def _summary(pairs: list[Pair]) -> Json:
    sources, predicted, measured = zip(*pairs, strict=True)
    return {
        "n": len(pairs),
        "sources": len(set(sources)),
        "predicted": median(predicted),
        "measured": median(measured),
        "correlation": rank_correlation(predicted, measured, sources)._asdict(),
    }
