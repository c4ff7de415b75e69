"""When the word "protected" may be printed. The rule is in :data:`RULE`, and stands in every report."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from experiments.report.input import UNDEFENDED, Json

MARGIN = 1.0  # dB, on the mean over images
WORST = 6.0  # dB, on any single image: half the error
SURE, DOUBT = 0.01, 0.05  # error levels of the identification test: to call it a leak, to withhold "protected"

RULE = (
    f"An attack beats a control where the lower end of the 95 % interval of its gain (PSNR of the reconstruction "
    f"minus PSNR of the control, image by image) lies above {MARGIN:g} dB. A setting is called “leaks” where an "
    f"attack beats every control that was run for it, or where it beats the unrelated-gradient control and "
    f"identifies more images than that control does (an exact test that flips the signs of their differences, "
    f"one-sided, {SURE:.0%}). Updates that have an image in common, and the images of an update, count as one: with "
    f"their mean gain and with the share of them identified, for the control as for the attack. It is called "
    f"“protected” only if all of this holds: without a defense it leaks; every attack that beat its controls there "
    f"was run here too; at least one attack run here knows the defense and uses it; every reconstruction was judged;"
    f" and for every attack the upper end of the interval of its gain over the unrelated-gradient control lies below"
    f" {MARGIN:g} dB, no single image gains {WORST:g} dB or more, no attack beats every control in any one round, "
    f"and no more images are identified than by that control (the same test, {DOUBT:.0%}, or what so few updates "
    f"allow). Everything else is “not shown”, which is neither safe nor unsafe."
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A word that ``RULE`` allows, and what it rests on."""

    word: Literal["leaks", "protected", "not shown"]
    reason: str


def beats_controls(row: Json) -> bool:
    """Whether a row of the table beats every control that was run, and one was."""
    run = [control for control in row["controls"].values() if control]
    return bool(run) and all(map(_beaten, run))


def identifies(row: Json) -> bool:
    """Whether a row's images are found in the line-up, and not by what the attack knew beforehand."""
    control, seen = row["controls"]["unrelated_gradient"], row["identified"]
    return bool(control and seen and _beaten(control) and _above_control(seen, SURE))


def verdict(rows: list[Json], undefended: list[Json] | None, rounds: Sequence[Json] = ()) -> Verdict:
    """Judge a setting.

    Args:
        rows: Of one setting, one for each attack.
        undefended: Of the setting that differs only in having no defense; ``None`` if the study has none.
        rounds: The same setting's by attack and round (:func:`experiments.report.rounds.by_round`).
    """
    if not any(row["judged"] for row in rows):
        unknown = any(row["confidence"] for row in rows)
        return Verdict("not shown", "The originals were not given" if unknown else "No reconstruction was judged")
    if winners := [row["attack"] for row in rows if beats_controls(row)]:
        return Verdict("leaks", f"Every control is clearly beaten by {_names(winners)}{_unasked(rows)}")
    if found := [row["attack"] for row in rows if identifies(row)]:
        return Verdict("leaks", f"Images are identified far above the control by {_names(found)}{_unasked(rows)}")
    if rows[0]["defense"] == UNDEFENDED:
        return Verdict("not shown", "Even without a defense no attack clearly beats its controls")
    if doubt := next(_doubts(rows, undefended, rounds), None):
        return Verdict("not shown", doubt)
    adaptive = _names([row["attack"] for row in rows if row["stance"] == "adaptive"])
    return Verdict(
        "protected",
        f"Against the attacks run: each stays less than {MARGIN:g} dB above its unrelated-gradient control, also with "
        f"knowledge of the defense ({adaptive}); without the defense the data leaks",
    )


def _unasked(rows: list[Json]) -> str:
    """What a leak's reader would miss: how much more there may be."""
    if rows[0]["defense"] == UNDEFENDED or any(row["stance"] in {"adaptive", "chosen", "sent"} for row in rows):
        return ""
    return "; no attack that knows this defense and uses it was run, which may take more"


def _doubts(rows: list[Json], undefended: list[Json] | None, rounds: Sequence[Json]) -> Iterator[str]:
    """Every reason not to say "protected", the most basic first."""
    if undefended is None:
        yield "The study has no undefended cell to compare with"
    winners = [row["attack"] for row in undefended or () if beats_controls(row)]
    if not winners:
        yield "Without a defense no attack clearly beats its controls, so holding here proves nothing"
    if missing := sorted(set(winners) - {row["attack"] for row in rows}):
        yield f"Not run here, though it succeeds without a defense: {_names(missing)}"
    if not any(row["stance"] == "adaptive" for row in rows):
        yield "No attack that knows this defense and uses it was run"
    for row in rounds:
        if beats_controls(row):
            yield f"In round {row['round']} every control is clearly beaten by {row['attack']}"
    for row in rows:
        yield from _doubts_about(row)


def _doubts_about(row: Json) -> Iterator[str]:
    name, control, seen = row["attack"], row["controls"]["unrelated_gradient"], row["identified"]
    if missing := row["observations"] - row["judged"]:
        yield f"{missing} of {row['observations']} reconstructions by {name} were not judged"
    if control is None or control["n"] < row["psnr"]["n"]:
        yield f"{name} lacks the unrelated-gradient control for some of its images"
        return
    gain = control["gain"]
    if gain["high"] is None:
        what = "one image" if row["psnr"]["images"] == 1 else "updates that share images"
        yield f"{name} was judged on {what}, which allows no interval"
    elif gain["high"] >= MARGIN:
        yield (
            f"{name} may gain {gain['high']:.1f} dB on its unrelated-gradient control (mean {gain['mean']:+.1f} dB, "
            f"95 % interval {gain['low']:+.1f} to {gain['high']:+.1f}), which is not below {MARGIN:g} dB"
        )
    if control["largest_gain"] >= WORST:
        yield f"{name} comes {control['largest_gain']:.1f} dB closer than its control on one image"
    if seen and _above_control(seen, max(DOUBT, 2.0 ** (1 - row["psnr"]["groups"]))):
        blind = seen["control"]
        yield f"{name} identifies {seen['count']} of {seen['n']} images, its control {blind['count']} of {blind['n']}"


def _beaten(control: Json) -> bool:
    return control["gain"]["low"] is not None and bool(control["gain"]["low"] > MARGIN)


def _above_control(seen: Json, level: float) -> bool:
    """More images found than the same attack finds from an unrelated gradient."""
    return seen["p"] is not None and bool(seen["p"] < level)


def _names(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
