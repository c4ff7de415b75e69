"""Numbers as people read them. A missing number is a dash, never a zero."""

from math import floor, log10

from experiments.report.input import Json

DASH = "\N{EN DASH}"
_NAMED = 4  # clients of an aggregate
EPSILON = (
    "Epsilon: of the updates of the client that took part most often, all rounds together. A record: against the "
    "same batches in which it has no gradient; a client: against any other data. The mean loss and the number of "
    "images that clients send beside their updates are not covered."
)


def decimal(value: float | None, places: int = 1) -> str:
    return DASH if value is None else f"{value:.{places}f}".replace("-", "\N{MINUS SIGN}")


def signed(value: float | None) -> str:
    return DASH if value is None else f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


def percent(value: float | None) -> str:
    """``value`` in [0, 1]."""
    return DASH if value is None else f"{100 * value:.1f} %"


def interval(spread: Json | None, places: int = 1) -> str:
    """``24.1 [22.0, 26.2]``; ``24.1 [one group]`` where updates share images, or there is one value."""
    if spread is None:
        return DASH
    mean = decimal(spread["mean"], places)
    if spread["low"] is None:
        return f"{mean} [n = 1]" if spread.get("n", 1) == 1 else f"{mean} [one group]"
    return f"{mean} [{decimal(spread['low'], places)}, {decimal(spread['high'], places)}]"


def correlation(found: Json) -> str:
    """``0.62 [0.21, 0.85]``; the interval is left out where there is none."""
    value = decimal(found["value"], 2)
    return value if found["low"] is None else f"{value} [{decimal(found['low'], 2)}, {decimal(found['high'], 2)}]"


def size(count: float | None) -> str:
    """Bytes, in powers of 1000."""
    if count is None:
        return DASH
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            break
        count /= 1000
    return f"{count:.{0 if count >= 100 or unit == 'B' else 1}f} {unit}"


def byte_scale(most: float) -> tuple[str, float]:
    """The unit in which amounts up to ``most`` bytes are drawn, and how many bytes it has."""
    scales = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
    return next((scale for scale in scales if most >= scale[1]), ("bytes", 1.0))


def duration(seconds: float | None) -> str:
    if seconds is None:
        return DASH
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def count(number: float | None) -> str:
    return DASH if number is None else f"{number:,.0f}".replace(",", "\u202f")


def things(number: int, noun: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def judged(spread: Json | None) -> str:
    """``8 images``; ``48 reconstructions of 8 images`` where one was attacked in several rounds, ``in 4 groups``."""
    if spread is None:
        return "0 images"
    images = things(spread["images"], "image")
    told = images if spread["n"] == spread["images"] else f"{things(spread['n'], 'reconstruction')} of {images}"
    return told if spread["groups"] == spread["images"] else f"{told} in {things(spread['groups'], 'group')}"


def sample(spread: Json | None) -> str:
    """The same in a narrow column: ``8``, ``48 of 8``, ``48 of 16 in 4``."""
    if spread is None:
        return "0"
    again = f" of {count(spread['images'])}" if spread["n"] > spread["images"] else ""
    return (
        count(spread["n"]) + again + (f" in {count(spread['groups'])}" if spread["groups"] < spread["images"] else "")
    )


def share(identified: Json | None) -> str:
    """``18 of 24``."""
    return DASH if identified is None else f"{identified['count']} of {identified['n']}"


def between(ends: list[int]) -> str:
    low, high = ends
    return str(low) if low == high else f"{low} to {high}"


def rounded_up(most: float) -> str:
    """An upper bound to three digits, or the next above it."""
    text = f"{most:.3g}"
    return text if float(text) >= most else f"{most + 10 ** floor(log10(most)) / 200:.3g}"


def bound(most: float | None) -> str:
    """An epsilon; ``None`` is infinite."""
    if most is None:
        return "infinite"
    shown = rounded_up(most)
    return count(float(shown)) if 1e3 <= float(shown) < 1e6 else shown


def privacy(spent: Json) -> str:
    """``Epsilon 3.4 a record at delta 1e-05``, and against whom, where that is not this server."""
    most = bound(spent["most"])
    against = "" if spent["against"] == "server" else " against those who see the model, none against this server"
    return f"Epsilon {most} a {spent['protects']} at delta {spent['delta']:g}{against}"


def clients(row: Json, *, seed: bool) -> str:
    """``3``, ``0 + 2 + 5`` where only their sum was seen; with the seed where there are several."""
    members = row["clients"]
    named = " + ".join(map(str, members[:_NAMED]))
    more = f" and {len(members) - _NAMED} more" if len(members) > _NAMED else ""
    return named + more + (f", seed {row['seed']}" if seed else "")


def unrecovered(found: Json | None) -> str:
    """``could not recover 14 of 20 images within 300 iterations and 9.8 s an observation``."""
    if found is None:
        return "judged no image"
    images, missed = things(found["n"], "image"), found["count"]
    within = [f"{count(found['iterations'])} iterations"] if found["iterations"] else []
    within += [duration(found["seconds"])] if found["seconds"] else []
    budget = f" within {' and '.join(within)} an observation at most" if within else ""
    if not missed:
        return f"recovered all of {images}{budget}"
    return f"could not recover {'any' if missed == found['n'] else missed} of {images}{budget}"
