"""``summary.json``: everything the page says in numbers, for machines."""

from experiments.report.answer import findings
from experiments.report.cost import training_by_round
from experiments.report.input import Json, ReportInput
from experiments.report.letters import capabilities
from experiments.report.predicted import predicted_risk
from experiments.report.rounds import by_class, by_client, by_round
from experiments.report.table import summarise

SCHEMA = 2
"""Raised where a key changes its meaning or goes."""


def summary(report: ReportInput) -> Json:
    """Plain values; ``None`` stands where nothing could be computed.

    ``schema``: the form of all this. ``study``, ``hash``, ``attacks_hash``, ``created``, ``command``, ``versions``:
    what was run. ``capabilities``: what the server was granted, by the letters of :mod:`experiments.report.letters`.
    ``verdicts``: a setting's word and reason. ``when``: the strongest attack of each round
    (:func:`~experiments.report.when.strongest_by_round`). ``rows``: a setting and attack each
    (:func:`~experiments.report.table.summarise`). ``by_round``, ``by_client``, ``by_class``: the same divided
    (:mod:`experiments.report.rounds`). ``predicted_risk``: predictors against measured PSNR
    (:func:`~experiments.report.predicted.predicted_risk`). ``training``: accuracy, epsilon and bytes by setting and
    round (:func:`~experiments.report.cost.training_by_round`).
    """
    rows = summarise(report)
    found = findings(report, rows)
    return {
        "schema": SCHEMA,
        "study": report.study["name"],
        "hash": report.study_hash,
        "attacks_hash": report.attacks_hash,
        "created": report.created,
        "command": report.command,
        "versions": report.versions,
        "capabilities": capabilities(report.study).as_json(),
        "verdicts": [
            {"setting": one.setting.label, "word": one.verdict.word, "reason": one.verdict.reason} for one in found
        ],
        "when": [row for one in found for row in one.rounds],
        "rows": rows,
        "by_round": by_round(report),
        "by_client": by_client(report),
        "by_class": by_class(report),
        "predicted_risk": predicted_risk(report),
        "training": training_by_round(report),
    }
