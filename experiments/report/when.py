"""When: what the strongest attack of each round recovers, and how much of it the defense hides in that round."""

from collections.abc import Iterator

from experiments.report import units
from experiments.report.input import UNDEFENDED, Json, ReportInput, Setting, judged, records_of, settings
from experiments.report.rounds import by_round
from experiments.report.verdict import beats_controls
from fl_sim.metrics.intervals import mean_interval


def strongest_by_round(report: ReportInput) -> list[Json]:
    """A row for each setting and attacked round: that of :func:`by_round` of the attack with the highest mean PSNR.

    ``named``: ``{"attack", "identified"}`` of the one that identifies most images there; ``None`` without a line-up.
    ``beats``: whether every control that was run is clearly beaten (:data:`experiments.report.verdict.RULE`).
    ``hidden``: ``{"from", "n", "sources", "mean", "low", "high"}``: by how many dB the strongest attack on the same
    updates without the defense, which is called ``from``, lies above this one, image by image; bounds as there.
    ``None`` for undefended settings, and where there is none to compare with.

    The strongest is known only to who has the originals: where several attacks were run, the mean of the best is a
    little too high by that choice.
    """
    best: dict[tuple[str, int], Json] = {}
    every = by_round(report)
    for row in every:
        place = row["setting"], row["round"]
        if place not in best or row["psnr"]["mean"] > best[place]["psnr"]["mean"]:
            best[place] = row
    open_ = {setting.others: setting for setting in settings(report) if setting.defense == UNDEFENDED}
    by_label = {setting.label: setting for setting in settings(report)}
    return [
        {
            **row,
            "beats": beats_controls(row),
            "named": _named([one for one in every if (one["setting"], one["round"]) == (row["setting"], row["round"])]),
            "hidden": _hidden(report, by_label[row["setting"]], open_.get(by_label[row["setting"]].others), row, best),
        }
        for _, row in sorted(best.items(), key=lambda one: (list(by_label).index(one[0][0]), one[0][1]))
    ]


def _named(rows: list[Json]) -> Json | None:
    seen = [row for row in rows if row["identified"]]
    most = max(seen, key=lambda row: (row["identified"]["count"], row["psnr"]["mean"]), default=None)
    return most and {"attack": most["attack"], "identified": most["identified"]}


def told(rounds: list[Json]) -> Iterator[str]:
    """Where several rounds were attacked, those in which the strongest attack of each recovers most and least."""
    if len(rounds) < 2:
        return
    by_mean = sorted(rounds, key=lambda row: float(row["psnr"]["mean"]))
    low, high = by_mean[0], by_mean[-1]
    bounds = high["psnr"]["low"], low["psnr"]["high"]
    overlap = "; the intervals overlap" if None not in bounds and bounds[0] <= bounds[1] else ""
    yield (
        f"Of the strongest attack of each round, the mean is highest in round {high['round']} ({high['attack']}, "
        f"{units.interval(high['psnr'])} dB) and lowest in round {low['round']} ({low['attack']}, "
        f"{units.interval(low['psnr'])} dB){overlap}."
    )
    numbers = [row["round"] for row in rounds]
    beaten = [row["round"] for row in rounds if row["beats"]]
    if beaten != numbers:
        where = f"round {_spans(beaten, numbers)} only" if beaten else "no round"
        yield f"The strongest of each round clearly beats every control in {where}."
    if all(row["hidden"] for row in rounds):
        first, last = (units.interval(row["hidden"]) for row in (rounds[0], rounds[-1]))
        yield (
            f"Against the strongest attack without it, the defense hides {first} dB in round {numbers[0]} and "
            f"{last} dB in round {numbers[-1]}."
        )


def _spans(rounds: list[int], among: list[int]) -> str:
    """``1 to 3 and 10``: rounds in words; two that follow one another ``among`` the attacked belong together."""
    runs: list[list[int]] = []
    for number in rounds:
        follows = runs and among.index(number) == among.index(runs[-1][-1]) + 1
        runs[-1].append(number) if follows else runs.append([number])
    words = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _hidden(
    report: ReportInput, setting: Setting, undefended: Setting | None, row: Json, best: dict[tuple[str, int], Json]
) -> Json | None:
    if undefended is None or undefended == setting or not (other := best.get((undefended.label, row["round"]))):
        return None
    theirs = dict(_images(report, undefended, other))
    pairs = [(image[:2], theirs[image] - psnr) for image, psnr in _images(report, setting, row) if image in theirs]
    if not pairs:
        return None
    sources = [source for source, _ in pairs]
    found = mean_interval([difference for _, difference in pairs], sources)
    return {"from": other["attack"], "n": len(pairs), "sources": len(set(sources)), **found._asdict()}


def _images(
    report: ReportInput, setting: Setting, row: Json
) -> Iterator[tuple[tuple[int, tuple[int, ...], int], float]]:
    """Seed, clients and place of every image of the row's attack and round, and its PSNR."""
    for record in judged(records_of(report, setting)[row["attack"]]):
        if record["round"] == row["round"]:
            for place, psnr in enumerate(record["psnr"]):
                yield (record["seed"], tuple(record["members"]), place), psnr
