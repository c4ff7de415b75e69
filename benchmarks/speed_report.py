"""The table of speed, from its records: ratios first."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from types import MappingProxyType

from benchmarks.results import Record
from fl_sim.metrics.intervals import mean_interval
from fl_sim.runtime import files

_HEAD = """# Speed, measured

Made by `python -m benchmarks.speed run`. The machine's speed drifts by a factor of two within minutes: only ratios
inside one part mean anything. Least and most stand in brackets.
"""


def write(records: Sequence[Record], out: Path) -> None:
    """``out`` with the suffix .md."""
    lines = [_HEAD]
    for part, rows in _PARTS.items():
        if mine := [record for record in records if record["part"] == part]:
            lines += [*rows(mine), f"\n{_made(mine)}\n"]
    files.write(out.with_suffix(".md"), ("\n".join(lines) + "\n").encode())


def _made(records: Sequence[Record]) -> str:
    """Every commit, machine and version that a part's records were made by."""
    where = [record["environment"] for record in records]
    commits, machines, torch = (
        ", ".join(dict.fromkeys(values))
        for values in (
            (str(one["commit"]) for one in where),
            (one["machine"].partition(",")[0] for one in where),
            (one["torch"] for one in where),
        )
    )
    return f"Commit {commits}; {machines}, torch {torch}."


def _networks(records: Sequence[Record]) -> Iterator[str]:
    yield "## The whole machine, against breaching 0.1.2\n"
    yield (
        "A step is one iteration of `inverting_gradients` with breaching's objective (plain cosine, total variation "
        "0.2, signed Adam, box) on one CIFAR-10 test image, batch 1, freshly initialised networks in eval mode; ours "
        "attacks 8 (`cnn`), 16 (`lenet`), 4 (`resnet18`) or 2 (`convnet`) images together. Its time is the difference "
        "between two runs, one of them three times as long, so that what is done once does not count: reading the "
        "observation, inferring the label, and for the compiled rows a minute of compiling the first time and a few "
        "seconds of tracing a job (compiling is automatic where an attack has 100,000 steps or more in a study). Five "
        "turns, medians. Ratios, turn by turn: over breaching as it runs by itself, one process with two threads; and "
        "over two breaching processes at once. Memory: the most that was resident in each process, summed; about 0.8 "
        "GiB of it are imports and the data set.\n"
    )
    yield "| network | how | over one breaching | over two | ms a step | MiB |\n|---|---|---|---|---|---|"
    for record in records:
        yield from _against_breaching(record, _spread)


def _jobs(records: Sequence[Record]) -> Iterator[str]:
    yield "## Whole reconstructions\n"
    yield (
        "`cnn`, 500 steps, from the observation to the picture: everything counts that a job does once, except imports "
        "and the first compiling; otherwise as above.\n"
    )
    yield "| network | how | over one breaching | over two | reconstructions an hour | MiB |\n|---|---|---|---|---|---|"
    for record in records:
        yield from _against_breaching(record, _per_hour)


def _per_hour(ms: Sequence[float]) -> str:
    least, middle, most = (3.6e6 / one for one in (max(ms), median(ms), min(ms)))
    return f"{middle:,.0f} [{least:,.0f}, {most:,.0f}]"


def _against_breaching(record: Record, shown: Callable[[Sequence[float]], str]) -> Iterator[str]:
    theirs = [ms for name, ms in record["ms"].items() if name.startswith("breaching")]
    for name, ms in record["ms"].items():
        ratios = " | ".join(_spread([a / b for a, b in zip(other, ms, strict=True)]) for other in theirs)
        yield f"| `{record['name']}` | {name} | {ratios} | {shown(ms)} | {record['mib'][name]} |"


def _scaling(records: Sequence[Record]) -> Iterator[str]:
    yield "## Targets, restarts, processes\n"
    yield "`cnn`; one process of one thread unless said. Ratio: steps a second over those of one target alone.\n"
    yield "| searched together | ratio | ms a step | MiB |\n|---|---|---|---|"
    for record in records:
        first = median(next(iter(record["ms"].values())))
        for name, ms in record["ms"].items():
            yield f"| {name} | {first / median(ms):.2f} | {_spread(ms)} | {record['mib'][name]} |"


def _limit(records: Sequence[Record]) -> Iterator[str]:
    yield "## Share of the processor's limit\n"
    yield (
        "One thread. Operations are those of a step of one target whose convolutions are computed directly (counted by "
        "PyTorch); the limit is the faster of a 1024 x 1024 matrix product and a convolution of 256 channels, measured "
        'in turns with the step. Winograd\'s filtering executes fewer operations, and "busy" is the share that those '
        "take.\n"
    )
    rates = "matmul, GFLOP/s | convolution, GFLOP/s"
    yield f"| network | targets together | share | busy | GFLOP a step | executed | ms a step | {rates} |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for r in records:
        rates = f"{r['gflop']} | {r['executed']} | {r['ms']} | {r['matmul']} | {r['convolution']}"
        yield f"| `{r['model']}` | {r['targets']} | {r['share']:.0%} | {r['busy']:.0%} | {rates} |"


def _generators(records: Sequence[Record]) -> Iterator[str]:
    yield "## Searches inside a generator\n"
    yield (
        "The bundled generator of digits, `cnn`, 28 x 28, one thread. Milliseconds a step of one chain (for `ggl`: of "
        "one candidate); ratio, turn by turn: chains a second over those of one alone.\n"
    )
    yield "| attack | at once | ratio | ms a step |\n|---|---|---|---|"
    for record in records:
        first = next(iter(record["ms"].values()))
        for name, ms in record["ms"].items():
            ratios = _spread([one / own for one, own in zip(first, ms, strict=True)])
            yield f"| `{record['name']}` | {name} | {ratios} | {_spread(ms)} |"


def _derivative(records: Sequence[Record]) -> Iterator[str]:
    yield "## Ways to the derivative\n"
    yield (
        "One image on one thread, seven parts truth and three noise; the step of a finite difference is relative to "
        "the weights' norm. Finite differences and forward-over-reverse are timed without the gradient that gives "
        "their direction, three passes of seven. Error: relative to reverse-over-reverse; signs: the share that agree, "
        "all that signed Adam uses.\n"
    )
    yield "| network | way | error | signs | ms |\n|---|---|---|---|---|"
    for record in records:
        for way, found in record.items():
            if isinstance(found, dict) and "error" in found:
                figures = f"{found['error']:.2g} | {found['signs']:.1%} | {found['ms']}"
                yield f"| `{record['name']}` | {way} | {figures} |"


def _federation(records: Sequence[Record]) -> Iterator[str]:
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
    yield f"| `fl-sim --help` | | {_spread(record['seconds'])} |"


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
    return f"| {what} | {_spread(ratios)} | {_spread(own)} over {_spread(other)} |"


def _quality(records: Sequence[Record]) -> Iterator[str]:
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


def _deep(records: Sequence[Record]) -> Iterator[str]:
    yield "## The same pictures\n"
    yield (
        "`convnet`, 8 CIFAR-10 test images, 120 steps with breaching's objective: what the engine finds and what plain "
        "double backward finds, trial by trial. Rounding grows over the steps of a search that takes signs, so single "
        "images differ. (`cnn`: the table above.)\n"
    )
    yield "| how | median PSNR | images |\n|---|---|---|"
    for record in records:
        values = [one["psnr"] for one in record["found"]]
        yield f"| {record['name']} | {median(values):.2f} | {', '.join(f'{value:.1f}' for value in values)} |"


_PARTS: Mapping[str, Callable[[Sequence[Record]], Iterator[str]]] = MappingProxyType(
    {
        "networks": _networks,
        "jobs": _jobs,
        "scaling": _scaling,
        "generators": _generators,
        "derivative": _derivative,
        "limit": _limit,
        "federation": _federation,
        "quality": _quality,
        "deep": _deep,
    }
)


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.3g} [{min(values):.3g}, {max(values):.3g}]"
