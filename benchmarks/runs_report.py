"""Tables of speed that are of whole runs: the loop around the step, what a picture costs, whether it is the same."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from types import MappingProxyType

from benchmarks.results import Record, spread
from fl_sim.metrics.intervals import mean_interval


def federation(records: Sequence[Record]) -> Iterator[str]:
    yield "## The loop around it\n"
    yield (
        "Watched: everything seen is on the disk before the clock stops. Beside each other: training on one processor, "
        "attacks on the other, over the longer of the two alone. Ways take turns, after one each that warms up, and "
        "every other turn in the other order. Actors: 32 attacks of 200 steps on `cnn`, the start of Ray included.\n"
    )
    yield "| what | ratio | seconds |\n|---|---|---|"
    for record in records:
        yield from _LOOP[record["name"]](record)


def _start(record: Record) -> Iterator[str]:
    yield f"| `fl-sim --help` | | {spread(record['seconds'])} |"


def _watching(record: Record) -> Iterator[str]:
    ratios = [own / other for own, other in zip(record["watched"], record["plain"], strict=True)]
    mean = mean_interval(ratios)
    what = f"{len(ratios)} pairs, mean {mean.mean:.3f} [{mean.low:.3f}, {mean.high:.3f}] (95 %)"
    yield _compared(
        f"a round of Flower's FedAvg, watched, over not watched; {what}", record["watched"], record["plain"]
    )


def _overlap(record: Record) -> Iterator[str]:
    legs = {leg: [one[leg] for one in record["apart"]] for leg in ("simulate", "attack")}
    alone = " and ".join(f"{median(seconds):.3g}" for seconds in legs.values())
    longer = [max(pair) for pair in zip(*legs.values(), strict=True)]
    what = f"training with attacks beside it, over the longer of the two (alone {alone} s)"
    yield _compared(what, record["together"], longer)


def _actors(record: Record) -> Iterator[str]:
    yield _compared("attacks in two actors, over one", record["2"], record["1"])


_LOOP: Mapping[str, Callable[[Record], Iterator[str]]] = MappingProxyType(
    {"start": _start, "watching": _watching, "overlap": _overlap, "actors": _actors}
)


def _compared(what: str, own: Sequence[float], other: Sequence[float]) -> str:
    """Turn by turn."""
    ratios = [a / b for a, b in zip(own, other, strict=True)]
    return f"| {what} | {spread(ratios)} | {spread(own)} over {spread(other)} |"


def quality(records: Sequence[Record]) -> Iterator[str]:
    yield "## Time to a picture\n"
    yield (
        "`cnn`, 32 CIFAR-10 test images (32 to 63), two processes of one thread. Read off afterwards: processor "
        "seconds to the first guess of 25 dB or more (no attack knows when it is there; all run to their end). Wait: "
        "since a search began; cost: of several images together the share of one. An image that is not found counts as "
        "longer than the whole search. Cheaper: breaching's cost over ours, the median over images that both find; and "
        "of the medians over all, a bound where breaching finds fewer than half.\n"
    )
    yield "| how | reach 25 dB | cheaper, both | cheaper, all | cost, s | wait, s | median PSNR | mean (95 %) |"
    yield "|---|---|---|---|---|---|---|---|"
    theirs = next(record for record in records if record["name"] == "breaching")
    for record in records:
        values = [one["psnr"] for one in record["found"]]
        mean = mean_interval(values)
        reached = sum(one["seconds"] is not None for one in record["found"])
        end = f"{median(values):.1f} | {mean.mean:.1f} [{mean.low:.1f}, {mean.high:.1f}]"
        yield f"| {record['name']} | {reached} of {len(values)} | {_cheaper(record, theirs)} | {end} |"


def _cheaper(ours: Record, theirs: Record) -> str:
    """Over images that both find, over all; cost and wait in seconds."""
    pairs = list(zip(_costs(ours), _costs(theirs), strict=True))
    both = [other / own for own, other in pairs if own and other]
    paired = f"{median(both):.3g} ({len(both)})" if both else "none"
    own, other = (_middle([pair[side] for pair in pairs]) for side in (0, 1))
    whole = [median(one["whole"] for one in record["found"]) / record["together"] for record in (ours, theirs)]
    if own is None:
        return f"{paired} | | > {whole[0]:.3g} | > {whole[0] * ours['together']:.3g}"
    ratio = f"{'> ' if other is None else ''}{(other or whole[1]) / own:.3g}"
    return f"{paired} | {ratio} | {own:.3g} | {own * ours['together']:.3g}"


def _costs(record: Record) -> list[float | None]:
    """Processor seconds of each image."""
    seconds = [one["seconds"] for one in record["found"]]
    return [None if one is None else one / record["together"] for one in seconds]


def _middle(costs: Sequence[float | None]) -> float | None:
    """The median; ``None`` where half do not get there."""
    middle = median([float("inf") if one is None else one for one in costs])
    return None if middle == float("inf") else middle


def deep(records: Sequence[Record]) -> Iterator[str]:
    yield "## The same pictures\n"
    yield (
        "`convnet`, 8 CIFAR-10 test images, 120 steps with breaching's objective: what the engine finds and what plain "
        "double backward finds, trial by trial. Rounding grows over the steps of a search that takes signs, so single "
        "images differ. (`cnn`: the table above.)\n"
    )
    yield "| how | median PSNR | over the first, paired | images |\n|---|---|---|---|"
    first = [one["psnr"] for one in records[0]["found"]]
    for record in records:
        values = [one["psnr"] for one in record["found"]]
        apart = spread([own - other for own, other in zip(values, first, strict=True)])
        yield f"| {record['name']} | {median(values):.2f} | {apart} | {', '.join(f'{value:.1f}' for value in values)} |"
