"""The numbers as one Markdown file: what is committed when a study is published."""

from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean

from experiments.report import units
from experiments.report.images import paired
from experiments.report.input import Json, ReportInput, records_of, settings
from experiments.report.table import summarise
from experiments.report.when import strongest_by_round
from fl_sim.metrics import gifd
from fl_sim.metrics.perceptual import Lpips

_HEAD = (
    "| attack | n | PSNR, dB [95 %] | median | minus {first} [95 %] "
    "| unrelated gradient | mean image | risk | identified | seconds |"
)
_COMPAT = ("SSIM", "LPIPS")
TRAINED = "against the images trained on"
_FEW = 8  # rounds that a table has room for
_RULE = "|---|---|---|---|---|---|---|---|---|---|"


def markdown(report: ReportInput) -> str:
    """Every setting's table, how it was measured, and from what."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: ReportInput) -> Iterator[str]:
    rows, when = summarise(report), strongest_by_round(report)
    yield f"# {report.study['name']}\n\n{report.question}\n"
    for setting in settings(report):
        mine = [row for row in rows if row["setting"] == setting.label]
        if not mine:
            continue
        by_attack = records_of(report, setting)
        first = mine[0]["attack"]
        yield f"## {setting.label}\n\n{_cost(mine[0])}\n"
        yield _HEAD.format(first=first)
        yield _RULE
        for row in mine:
            yield _row(row, paired(by_attack[row["attack"]], by_attack[first]) if row["attack"] != first else None)
            if row["trained"]:
                yield _trained(row["trained"])
        yield ""
        yield from _perceived(mine)
        yield from _believed(mine)
        yield from _by_round(by_attack, [row for row in when if row["setting"] == setting.label])
    yield from _method(report, rows)


def _perceived(rows: list[Json]) -> Iterator[str]:
    """SSIM and LPIPS where the latter was computed, and as GIFD's code takes them where the study asks for that."""
    compat = any(row["gifd"] for row in rows)
    if not compat and not any(row["lpips"] for row in rows):
        return
    heads = ["SSIM [95 %]", "LPIPS [95 %]", *(f"{name}, as GIFD's code: normalised" for name in _COMPAT if compat)]
    yield f"| attack | {' | '.join(heads)} |"
    yield f"|---|{'---|' * len(heads)}"
    for row in rows:
        found = [row["ssim"], row["lpips"], *((row["gifd"] or {}).get(name.lower()) for name in _COMPAT if compat)]
        yield f"| {row['attack']} | {' | '.join(units.interval(one, 3) for one in found)} |"
    yield ""


def _believed(rows: list[Json]) -> Iterator[str]:
    """Confidence, of records whose truth may not be known."""
    if not (told := [row for row in rows if row["confidence"]]):
        return
    yield "| confidence, medians; no distance to originals | agreement | fit | misfit | labels agreed |"
    yield "|---|---|---|---|---|"
    for row in told:
        medians = [spread and spread["median"] for spread in row["confidence"].values()]
        yield f"| {row['attack']} | {' | '.join(units.decimal(median, 3) for median in medians)} |"
    yield ""


def _by_round(by_attack: dict[str, list[Json]], when: list[Json]) -> Iterator[str]:
    """Mean PSNR of each attacked round, where there are a few of them, and what the defense hides of the strongest."""
    rounds = sorted({record["round"] for records in by_attack.values() for record in records})
    if not 1 < len(rounds) <= _FEW:
        return
    yield f"| PSNR, dB, by round | {' | '.join(map(str, rounds))} |"
    yield f"|---|{'---|' * len(rounds)}"
    for attack, records in by_attack.items():
        means = [_mean(record["psnr"] for record in records if record["round"] == number) for number in rounds]
        yield f"| {attack} | {' | '.join(map(units.decimal, means))} |"
    if any(row["hidden"] for row in when):
        hidden = {row["round"]: units.interval(row["hidden"]) for row in when}
        yield f"| hidden by the defense [95 %] | {' | '.join(hidden.get(number, units.DASH) for number in rounds)} |"
    yield ""


def _mean(found: Iterable[Sequence[float] | None]) -> float | None:
    each = [psnr for one in found for psnr in one or ()]
    return fmean(each) if each else None


def _cost(row: Json) -> str:
    """What the defense costs and promises, the same for all attacks."""
    text = f"Test accuracy of the attacked net: {units.percent(row['accuracy'])}."
    if row["bytes_up"]:
        text += f" Sent per client and round: {units.size(row['bytes_up'])}."
    return f"{text} {units.privacy(row['epsilon'])}." if row["epsilon"] else text


def _row(row: Json, minus_first: Json | None) -> str:
    controls = row["controls"]
    cells = [
        row["attack"]
        + (" (knows the defense)" if row["stance"] == "adaptive" else "")
        + (f" (joins up to {row['rounds']} rounds)" if row["rounds"] > 1 else ""),
        units.sample(row["psnr"]),
        units.interval(row["psnr"], 2),
        units.decimal(row["psnr"]["median"], 2) if row["psnr"] else units.DASH,
        units.interval(minus_first, 2),
        units.decimal(controls["unrelated_gradient"]["mean"]) if controls["unrelated_gradient"] else units.DASH,
        units.decimal(controls["mean_image"]["mean"]) if controls["mean_image"] else units.DASH,
        units.decimal(row["risk"]["value"], 2) if row["risk"] else units.DASH,
        units.share(row["identified"]),
        units.decimal(row["seconds"]["median"]) if row["seconds"] else units.DASH,
    ]
    return f"| {' | '.join(cells)} |"


def _trained(against: Json) -> str:
    psnr = against["psnr"]
    cells = [TRAINED, units.sample(psnr), units.interval(psnr, 2), units.decimal(psnr["median"], 2), *[units.DASH] * 6]
    return f"| {' | '.join(cells)} |"


def _method(report: ReportInput, rows: list[Json]) -> Iterator[str]:
    delta = next((row["risk"]["delta"] for row in rows if row["risk"]), None)
    seconds = sum(row["seconds"]["total"] for row in rows if row["seconds"])
    devices = sorted({device for row in rows for device in row["devices"]})
    yield (
        "PSNR on [0, 1], mean over images with its 95 % interval (Student's t); differences are paired, image by "
        "image. n: images; 48 of 8: reconstructions of so many images, where one is attacked in several rounds; 256 "
        "in 8: in so many groups of updates that have an image in common, each of which counts once in means, "
        "intervals and shares. Unrelated gradient: the same attack on another client's update, held against this "
        "image. Mean image: that of the public images. Images trained on: what data defenses made of the originals. "
        f"Risk: share of images farther than {units.decimal(delta)} off (L2, normalised). Identified: the true image "
        "comes first in a line-up, in any round. Seconds: median of an observation, those searched together sharing "
        "the time. Hidden by the defense: the strongest attack of the round without it minus the strongest with it, "
        "on the same images, paired; intervals over clients and seeds.\n"
    )
    if any(row["gifd"] for row in rows):
        yield f"LPIPS: {Lpips.settings}. {gifd.SETTINGS}.\n"
    if any(row["epsilon"] for row in rows):
        yield f"{units.EPSILON}\n"
    yield "| | |\n|---|---|"
    yield f"| rebuilt by | `{report.command}` |"
    yield f"| study | hash {report.study_hash}, seed {report.study['seed']}, first run {report.created} |"
    yield f"| attacks | hash {report.attacks_hash}, files included |"
    yield f"| attacks took | {units.duration(seconds)} in all, one thread each, on {', '.join(devices)} |"
    yield f"| versions | {', '.join(f'{name} {version}' for name, version in report.versions.items())} |"
    for part in report.study["attacks"]:
        settings_ = {k: v for k, v in part.items() if k not in {"name", "label", "only", "tune"} and v not in ({}, [])}
        yield f"| {part.get('label') or part['name']} | {part['name']}, {settings_} |"
