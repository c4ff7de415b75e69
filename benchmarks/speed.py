"""How fast attacks run: measure, and write the table. See README.md."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer

from benchmarks import derivative, federated, flops, generators, quality, results
from benchmarks.stopwatch import Figures, Lap, measured

PATH = results.PATH.with_name("speed.json")
REPEATS = 5
NETWORKS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"cnn": (60, 8), "lenet": (80, 16), "resnet18": (4, 4), "convnet": (4, 2)}
)
"""Steps of the shorter run of one target, and the targets attacked together."""
SMALL = ("cnn", "lenet")  # also compiled, and with many targets together
MANY = 64

app = typer.Typer(add_completion=False)
Out = Annotated[Path, typer.Option(help="The file of results; the table is written beside it.")]


@app.command()
def run(
    parts: Annotated[list[str] | None, typer.Argument(help="Which; all if not given.")] = None, out: Out = PATH
) -> None:
    """Measure PARTS again, each replacing its last result, and write the table."""
    for part in parts or PARTS:
        if part not in PARTS:
            raise typer.BadParameter(f"expected one of {', '.join(PARTS)}, got {part!r}")
        records = [record for record in results.read(out) if record["part"] != part]
        for name, figures in PARTS[part]():
            records.append({"part": part, "name": name, **figures, "environment": results.environment()})
            results.write(out, records)
            print(part, name, figures, flush=True)
    table(out)


@app.command()
def table(out: Out = PATH) -> None:
    """Write the table of the results so far."""
    from benchmarks import speed_report

    speed_report.write(results.read(out), out)


def rivals(model: str) -> Mapping[str, Lap]:
    """The whole machine on one network: breaching's way, and ours."""
    steps, many = NETWORKS[model]
    fewer = max(3, steps // 2)
    laps = {
        "breaching, 1 process, 2 threads": Lap("breaching", model, steps, threads=2),
        "breaching, 2 processes": Lap("breaching", model, steps, processes=2),
        "trial by trial, 2 processes": Lap("looped", model, steps, processes=2),
        "fl-sim, 2 processes": Lap("fl-sim", model, fewer, targets=many, processes=2),
    }
    if model in SMALL:
        laps[f"fl-sim, {MANY} together, 2 processes"] = Lap("fl-sim", model, fewer // 4, targets=MANY, processes=2)
        laps["fl-sim compiled, 2 processes"] = Lap("compiled", model, 10 * fewer, targets=many, processes=2)
    return laps


def jobs() -> Mapping[str, Lap]:
    """Whole reconstructions: everything that a job does once is in them."""
    return {
        "breaching, 1 process, 2 threads": Lap("breaching", "cnn", 500, threads=2),
        "breaching, 2 processes": Lap("breaching", "cnn", 500, processes=2),
        "fl-sim, 2 processes": Lap("fl-sim", "cnn", 500, targets=8, processes=2),
        f"fl-sim, {MANY} together, 2 processes": Lap("fl-sim", "cnn", 500, targets=MANY, processes=2),
        "fl-sim compiled, 2 processes": Lap("compiled", "cnn", 500, targets=8, processes=2),
    }


def scaling() -> Mapping[str, Lap]:
    """One process on more and more targets or starts; then two."""
    laps = {f"targets {many}": Lap("fl-sim", "cnn", 240 // max(many, 4), targets=many) for many in (1, 4, 16, 64)}
    laps |= {f"restarts {many}": Lap("fl-sim", "cnn", 240 // many, restarts=many) for many in (4, 16)}
    return laps | {"targets 16, 2 processes": Lap("fl-sim", "cnn", 15, targets=16, processes=2)}


def _timed(laps: Mapping[str, Lap], what: Callable[[Lap], Figures] = Lap.step) -> dict[str, Any]:
    """Milliseconds of each lap and the most memory, in turns, so that a slow minute slows all."""
    found: dict[str, list[Figures]] = {name: [] for name in laps}
    for turn in range(REPEATS):
        for name in list(laps)[:: -1 if turn % 2 else 1]:
            found[name].append(measured(laps[name], what))
    return {
        "ms": {name: [round(1000 * one.seconds, 3) for one in those] for name, those in found.items()},
        "mib": {name: round(max(one.mebibytes for one in those)) for name, those in found.items()},
    }


def _networks() -> Iterator[tuple[str, dict[str, Any]]]:
    for model in NETWORKS:
        yield model, _timed(rivals(model))


def _jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "cnn", _timed(jobs(), Lap.job)


def _scaling() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "cnn", _timed(scaling())


PARTS: Mapping[str, Callable[[], Iterator[tuple[str, dict[str, Any]]]]] = MappingProxyType(
    {
        "networks": _networks,
        "jobs": _jobs,
        "scaling": _scaling,
        "generators": generators.measure,
        "derivative": derivative.measure,
        "limit": flops.measure,
        "federation": federated.measure,
        "quality": quality.measure,
        "deep": quality.deep,
    }
)

if __name__ == "__main__":
    app()
