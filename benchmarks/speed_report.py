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
            made = mine[0]["environment"]
            lines += [
                *rows(mine),
                f"\nCommit {made['commit']}, {made['machine'].partition(',')[0]}, torch {made['torch']}.\n",
            ]
    files.write(out.with_suffix(".md"), ("\n".join(lines) + "\n").encode())


def _networks(records: Sequence[Record]) -> Iterator[str]:
    yield "## The whole machine, against breaching 0.1.2\n"
    yield (
        "A step is one iteration of `inverting_gradients` with breaching's objective (plain cosine, total variation "
        "0.2, signed Adam, box) on one CIFAR-10 test image, batch 1, freshly initialised networks in eval mode; ours "
        "attacks 8 (`cnn`), 16 (`lenet`), 4 (`resnet18`) or 2 (`convnet`) images together. Its time is the difference "
        "between two runs, one of them three times as long, so that what is done once does not count: reading the "
        "observation, inferring the label, and for the compiled rows a minute of compiling the first time and a few "
        "seconds of tracing a job (compiling is automatic where an attack has 100,000 steps or more in a study). Five "
        "turns, medians. Ratios: over breaching as it runs by itself, one process with two threads; and over two "
        "breaching processes at once.\n"
    )
    yield "| network | how | over one breaching | over two | ms a step |\n|---|---|---|---|---|"
    for record in records:
        one, two = (median(ms) for name, ms in record["ms"].items() if name.startswith("breaching"))
        for name, ms in record["ms"].items():
            ratios = f"{one / median(ms):.2f} | {two / median(ms):.2f}"
            yield f"| `{record['name']}` | {name} | {ratios} | {_spread(ms)} |"


def _scaling(records: Sequence[Record]) -> Iterator[str]:
    yield "## Targets, restarts, processes\n"
    yield "`cnn`; one process of one thread unless said. Ratio: steps a second over those of one target alone.\n"
    yield "| searched together | ratio | ms a step |\n|---|---|---|"
    for record in records:
        first = median(next(iter(record["ms"].values())))
        for name, ms in record["ms"].items():
            yield f"| {name} | {first / median(ms):.2f} | {_spread(ms)} |"


def _limit(records: Sequence[Record]) -> Iterator[str]:
    yield "## Share of the processor's limit\n"
    yield (
        "One thread, one target. Operations are those of a step whose convolutions are computed directly (counted by "
        "PyTorch); the limit is the faster of a 1024 x 1024 matrix product and a convolution of 256 channels, measured "
        "in turns with the step. Winograd's filtering needs fewer operations than are counted.\n"
    )
    yield "| network | share | GFLOP a step | ms a step | matmul, GFLOP/s | convolution, GFLOP/s |"
    yield "|---|---|---|---|---|---|"
    for r in records:
        yield f"| `{r['name']}` | {r['share']:.0%} | {r['gflop']} | {r['ms']} | {r['matmul']} | {r['convolution']} |"


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
    yield "| what | ratio | seconds |\n|---|---|---|"
    found = {record["name"]: record for record in records}
    if start := found.get("start"):
        yield f"| `fl-sim --help` | | {_spread(start['seconds'])} |"
    if watching := found.get("watching"):
        plain, watched = watching["plain"], watching["watched"]
        ratio = median(watched) / median(plain)
        seconds = f"{_spread(watched)}, {_spread(plain)}"
        yield f"| a round of Flower's FedAvg, watched, over not watched | {ratio:.3f} | {seconds} |"
    if overlap := found.get("overlap"):
        ratios = [s["simulate_and_attack"] / max(s["simulate"], s["attack"]) for s in overlap["seconds"]]
        parts = "; ".join(
            f"{s['simulate_and_attack']} of {s['simulate']} and {s['attack']}" for s in overlap["seconds"]
        )
        yield f"| training with attacks beside it, over the longer of the two | {_spread(ratios)} | {parts} |"


def _quality(records: Sequence[Record]) -> Iterator[str]:
    yield "## Time to a picture\n"
    yield (
        "`cnn`, 32 CIFAR-10 test images (32 to 63), one by one on one thread; steps and processor seconds to the first "
        "guess of 25 dB or more, read off afterwards: no attack knows when it is there. An image that never gets there "
        "counts as never.\n"
    )
    yield "| how | reach 25 dB | median steps | median seconds | median PSNR in the end | mean (95 % interval) |"
    yield "|---|---|---|---|---|---|"
    for record in records:
        found = record["found"]
        values = [one["psnr"] for one in found]
        mean = mean_interval(values)
        interval = f"{mean.mean:.1f} [{mean.low:.1f}, {mean.high:.1f}]"
        steps, seconds = (_middle([one[what] for one in found]) for what in ("steps", "seconds"))
        reached = sum(one["steps"] is not None for one in found)
        filmed = reached > 0 or "together" not in record["name"]
        end = f"{median(values):.1f} | {interval}"
        way = f"{reached} of {len(values)} | {steps} | {seconds}" if filmed else "not filmed | | "
        yield f"| {record['name']} | {way} | {end} |"


def _middle(values: Sequence[float | None]) -> str:
    middle = median([float("inf") if value is None else value for value in values])
    return "never" if middle == float("inf") else f"{middle:.4g}"


_PARTS: Mapping[str, Callable[[Sequence[Record]], Iterator[str]]] = MappingProxyType(
    {
        "networks": _networks,
        "scaling": _scaling,
        "derivative": _derivative,
        "limit": _limit,
        "federation": _federation,
        "quality": _quality,
    }
)


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.3g} [{min(values):.3g}, {max(values):.3g}]"
