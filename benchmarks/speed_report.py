"""The table of speed, from its records: ratios first."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from types import MappingProxyType

from benchmarks import runs_report
from benchmarks.results import Record, spread
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
        yield from _against_breaching(record, spread)


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
        ratios = " | ".join(spread([a / b for a, b in zip(other, ms, strict=True)]) for other in theirs)
        yield f"| `{record['name']}` | {name} | {ratios} | {shown(ms)} | {record['mib'][name]} |"


def _scaling(records: Sequence[Record]) -> Iterator[str]:
    yield "## Targets, restarts, processes\n"
    yield "`cnn`; one process of one thread unless said. Ratio: steps a second over those of one target alone.\n"
    yield "| searched together | ratio | ms a step | MiB |\n|---|---|---|---|"
    for record in records:
        first = median(next(iter(record["ms"].values())))
        for name, ms in record["ms"].items():
            yield f"| {name} | {first / median(ms):.2f} | {spread(ms)} | {record['mib'][name]} |"


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
            ratios = spread([one / own for one, own in zip(first, ms, strict=True)])
            yield f"| `{record['name']}` | {name} | {ratios} | {spread(ms)} |"


def _derivative(records: Sequence[Record]) -> Iterator[str]:
    yield "## Ways to the derivative\n"
    yield (
        "One image on one thread, seven parts truth and three noise; the step of a finite difference is relative to "
        "the weights' norm. Times are of whole steps: of forward-over-reverse and differences with the gradient that "
        "gives their direction. Error: relative to reverse-over-reverse; signs: the share that agree, all that signed "
        "Adam uses.\n"
    )
    yield "| network | way | error | signs | ms |\n|---|---|---|---|---|"
    for record in records:
        for way, found in record.items():
            if isinstance(found, dict) and "error" in found:
                figures = f"{found['error']:.2g} | {found['signs']:.1%} | {found['ms']}"
                yield f"| `{record['name']}` | {way} | {figures} |"


_PARTS: Mapping[str, Callable[[Sequence[Record]], Iterator[str]]] = MappingProxyType(
    {
        "networks": _networks,
        "jobs": _jobs,
        "scaling": _scaling,
        "generators": _generators,
        "derivative": _derivative,
        "limit": _limit,
        "federation": runs_report.federation,
        "quality": runs_report.quality,
        "deep": runs_report.deep,
    }
)
