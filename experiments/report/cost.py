"""What training gained, sent and gave away: accuracy, bytes and epsilon, in all and round by round."""

from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from math import isfinite
from statistics import fmean

from experiments.report.input import Json, ReportInput, Setting, settings
from fl_sim.metrics.accounting import DELTA, epsilon
from fl_sim.metrics.intervals import mean_interval

_POINTS = 13  # rounds at which a sampled mechanism, whose accountant takes a second, is accounted for


def final_accuracy(report: ReportInput, setting: Setting) -> float | None:
    """Test accuracy in [0, 1] after the last round, mean over the setting's cells; ``None`` before any."""
    ends = [rows[-1]["accuracy"] for rows in training_of(report, setting)]
    return fmean(ends) if ends else None


def training_of(report: ReportInput, setting: Setting) -> list[list[Json]]:
    """The rounds of each of the setting's cells that trained."""
    return [rows for cell in setting.cells if (rows := report.training.get(cell))]


def bytes_up(report: ReportInput, setting: Setting) -> float | None:
    """Sent by a client in a round, mean over all replies."""
    rows = [row for rounds in training_of(report, setting) for row in rounds]
    replies = sum(len(row["clients"]) for row in rows)
    return sum(row["bytes_up"] for row in rows) / replies if replies else None


def spent(report: ReportInput, setting: Setting, until: int | None = None) -> Json | None:
    """Epsilon of the client that took part most often, in the cell where that is most.

    Args:
        until: The last round that counts; ``None``: all.
    """
    found = []
    for cell in setting.cells:
        one, rows = report.guarantees.get(cell), report.training.get(cell, [])
        replies = Counter(c for row in rows if until is None or row["round"] <= until for c in _repliers(row))
        if one is None or not any(row["clients"] or row["refused"] for row in rows):
            return None
        often = max(replies.values(), default=0)
        found.append((epsilon(one.multiplier, one.steps * often, rate=one.rate), one))
    most, given = max(found, key=lambda pair: pair[0])
    return {
        "protects": given.protects,
        "against": given.against,
        "delta": DELTA,
        "most": most if isfinite(most) else None,
    }


def _repliers(row: Json) -> Iterator[int]:
    """Clients whose update the server saw in a round, used or refused."""
    yield from row["clients"]
    yield from (refusal["client"] for refusal in row["refused"] if refusal["client"] not in row["clients"])


def training_by_round(report: ReportInput) -> list[Json]:
    """A row for each setting and round, from round 0 (before training).

    ``accuracy``: on the test images after the round, in [0, 1], ``{"n", "mean", "low", "high"}`` over seeds, the bounds
    of its 95 % interval. ``bytes_up``: sent by all clients so far, mean over seeds. ``images``: used so far, counted
    as often as they were; ``None`` where an earlier version did not count them. ``epsilon``: spent so far, as in
    :func:`experiments.report.table.summarise`; ``None`` where there is none, or where it was not computed: sampled
    mechanisms are accounted for at some rounds only, the first and the last among them.
    """
    return [row for setting in settings(report) for row in _rounds(report, setting)]


def _rounds(report: ReportInput, setting: Setting) -> Iterator[Json]:
    seeds = training_of(report, setting)
    if not seeds:
        return
    shortest = min(map(len, seeds))  # a seed may still be running
    sent = [list(accumulate(row["bytes_up"] for row in rows)) for rows in seeds]
    used = [list(accumulate(row["images"] for row in rows)) for rows in seeds if "images" in rows[0]]
    accounted = _accounted(report, setting, shortest)
    for place in range(shortest):
        number = seeds[0][place]["round"]
        accuracies = [rows[place]["accuracy"] for rows in seeds]
        yield {
            "setting": setting.label,
            "round": number,
            "accuracy": {"n": len(accuracies), **mean_interval(accuracies)._asdict()},
            "bytes_up": fmean(one[place] for one in sent),
            "images": fmean(one[place] for one in used) if used else None,
            "epsilon": spent(report, setting, number) if place in accounted else None,
        }


def _accounted(report: ReportInput, setting: Setting, rounds: int) -> set[int]:
    """Places of the rounds at which epsilon is computed: all, unless that would take minutes."""
    sampled = any(one.rate < 1 for cell in setting.cells if (one := report.guarantees.get(cell)))
    points = min(rounds, _POINTS) if sampled else rounds
    return {round(i * (rounds - 1) / max(1, points - 1)) for i in range(points)}
