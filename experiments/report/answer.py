"""The first thing a reader sees: what was found, in sentences that name their numbers."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from experiments.report import units
from experiments.report.cost import final_accuracy
from experiments.report.images import groups_of, images_of, paired
from experiments.report.input import UNDEFENDED, Json, ReportInput, Setting, judged, records_of, settings
from experiments.report.rounds import by_client, by_round
from experiments.report.table import most_identified, strongest
from experiments.report.verdict import Verdict, verdict
from experiments.report.when import strongest_by_round, told


@dataclass(frozen=True, slots=True)
class Finding:
    """What one setting came to. ``strongest``: its row of the table with the highest mean PSNR, if any was judged.
    ``namer``: that of the attack that identifies most images; the strongest, where it is one of them.
    ``rounds``: the strongest attack of each attacked round.
    """

    setting: Setting
    verdict: Verdict
    strongest: Json | None
    namer: Json | None
    accuracy: float | None
    rounds: list[Json]
    sentences: tuple[str, ...]


class _Divided(NamedTuple):
    """The settings' figures by round and attack, by round, and by client."""

    every: list[Json]
    when: list[Json]
    clients: list[Json]


def findings(report: ReportInput, rows: list[Json]) -> list[Finding]:
    """One for each setting, also where nothing was judged."""
    by_setting = {setting: _of_setting(rows, setting) for setting in settings(report)}
    undefended = {s.others: found for s, found in by_setting.items() if s.defense == UNDEFENDED}
    divided = _Divided(by_round(report), strongest_by_round(report), by_client(report))
    return [
        _finding(report, setting, found, undefended.get(setting.others), divided)
        for setting, found in by_setting.items()
    ]


def _finding(
    report: ReportInput, setting: Setting, rows: list[Json], undefended: list[Json] | None, divided: _Divided
) -> Finding:
    most, namer, rounds = strongest(rows), most_identified(rows), _of_setting(divided.when, setting)
    said: Iterator[str] = _believed(rows)
    if most:
        said = chain(
            _sentences(most, len(rows)),
            _named(namer) if namer else (),
            _informed(report, setting, rows),
            told(rounds),
            _whom(most, divided.clients),
            _least(rows),
        )
    return Finding(
        setting=setting,
        verdict=verdict(rows, undefended, _of_setting(divided.every, setting)),
        strongest=most,
        namer=namer,
        accuracy=final_accuracy(report, setting),
        rounds=rounds,
        sentences=tuple(said),
    )


def _of_setting(table: list[Json], setting: Setting) -> list[Json]:
    return [row for row in table if row["setting"] == setting.label]


def _sentences(row: Json, attacks: int) -> Iterator[str]:
    psnr, control = row["psnr"], row["controls"]["unrelated_gradient"]
    among = f"strongest of {attacks} attacks" if attacks > 1 else "the only attack"
    reached = f"{units.interval(psnr)} dB (median {units.decimal(psnr['median'])}) over {units.judged(psnr)}"
    yield f"{row['attack']} ({among}) reaches a mean PSNR of {reached}."
    if row["rounds"] > 1:
        yield f"It fits up to {row['rounds']} rounds of a client together, taken to be of the same images."
    if row["trained"]:
        mean = row["trained"]["psnr"]["mean"]
        yield (
            f"Held against the images that the client trained on, which the defense made of the originals: "
            f"{units.decimal(mean)} dB."
        )
    if control:
        yield (
            f"On an unrelated gradient it reaches {units.decimal(control['mean'])} dB; image by image the gain is "
            f"{units.signed(control['gain']['mean'])} dB{_bounds(control['gain'])}."
        )


def _informed(report: ReportInput, setting: Setting, rows: list[Json]) -> Iterator[str]:
    """What knowing the defense is worth: the best attack that uses it against the best that does not."""
    told_, blind = (strongest([row for row in rows if row["stance"] == kind]) for kind in ("adaptive", "naive"))
    if not told_ or not blind:
        return
    records = records_of(report, setting)
    gain = paired(records[told_["attack"]], records[blind["attack"]])
    if gain:
        yield (
            f"Knowing the defense is worth {units.signed(gain['mean'])} dB{_bounds(gain)}: {told_['attack']} against "
            f"{blind['attack']}."
        )


def _believed(rows: list[Json]) -> Iterator[str]:
    """How far reconstructions may be believed that nobody can hold against the truth."""
    for row in rows:
        if not row["confidence"]:
            continue
        agreement, fit = row["confidence"]["agreement"], row["confidence"]["fit"]
        told = [f"agreement {units.decimal(agreement['median'], 2)}"] if agreement else []
        told += [f"fit {units.decimal(fit['median'], 2)}"] if fit else []
        misfit = row["confidence"]["misfit"]
        told = told or [f"misfit {units.decimal(misfit['median'], 3)}, with no other client's update to compare with"]
        yield f"{row['attack']}: median {', '.join(told)} (1 is most, neither is a distance to the originals)."


def _whom(most: Json, clients: list[Json]) -> Iterator[str]:
    """Whose images come out best, where several clients were attacked."""
    if len(mine := _of(most, clients)) > 1:
        several = len({row["seed"] for row in mine}) > 1
        first, last = (units.clients(row, seed=several) for row in (mine[0], mine[-1]))
        yield (
            f"Most exposed is client {first} (median {units.decimal(mine[0]['psnr']['median'])} dB, n = "
            f"{mine[0]['psnr']['n']}), least client {last} ({units.decimal(mine[-1]['psnr']['median'])} dB)."
        )


def _least(rows: list[Json]) -> Iterator[str]:
    """What the attack that misses fewest could not recover."""
    best = min((row for row in rows if row["unrecovered"]), key=lambda row: int(row["unrecovered"]["count"]))
    yield f"{best['attack']} {units.unrecovered(best['unrecovered'])}."


def _of(most: Json, table: list[Json]) -> list[Json]:
    return [row for row in table if (row["setting"], row["attack"]) == (most["setting"], most["attack"])]


def _named(row: Json) -> Iterator[str]:
    """What the attack that identifies most finds in the line-up."""
    seen, ever = row["identified"], " at least once" if row["psnr"]["n"] > row["psnr"]["images"] else ""
    yield (
        f"{row['attack']} identifies {seen['count']} of {units.things(seen['n'], 'image')}{ever} in a line-up with "
        f"{units.between(seen['candidates'])} others{_blind(seen['control'])}."
    )


def _bounds(gain: Json) -> str:
    if gain["low"] is None:
        return " (no interval: one image, or updates that share images)"
    return f" (95 % interval {units.signed(gain['low'])} to {units.signed(gain['high'])})"


def headline(found: list[Finding], records: list[Json]) -> str:
    """One sentence over all settings."""
    if not records:
        return "No reconstruction has been judged yet: there is nothing to conclude from."
    done = judged(records)
    images = [image for record in done for image in images_of(record)]
    over = units.judged({"n": len(images), "images": len(set(images)), "groups": len(set(groups_of(done)))})
    blind = sum(not record["psnr"] and bool(record.get("confidence")) for record in records)
    unjudged = sum(not record["psnr"] for record in records) - blind
    count = Counter(finding.verdict.word for finding in found)
    verdicts = {
        "leaks": "leak" if count["leaks"] > 1 else "leaks",
        "protected": "protected against the attacks run",
        "not shown": "shown neither way",
    }
    told = ", ".join(f"{count[word]} {words}" for word, words in verdicts.items() if count[word])  # type: ignore[index]
    failed = f"; {units.things(unjudged, 'reconstruction')} ended without an image" if unjudged else ""
    unknown = f"; of {units.things(blind, 'reconstruction')} the originals are not known" if blind else ""
    return f"Of {units.things(len(found), 'setting')}: {told}. Judged: {over}{unknown}{failed}."


def _blind(control: Json | None) -> str:
    return f"; from an unrelated gradient, {control['count']} of {control['n']}" if control else ""
