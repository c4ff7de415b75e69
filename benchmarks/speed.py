"""How fast attacks run: measure, and write the table. See README.md."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer

from benchmarks import derivative, federated, flops, quality, results
from benchmarks.stopwatch import Lap, step_seconds

PATH = results.PATH.with_name("speed.json")
REPEATS = 5
NETWORKS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"cnn": (60, 8), "lenet": (80, 16), "resnet18": (4, 4), "convnet": (4, 2)}
)
"""Steps of the shorter run of one target, and the targets attacked together."""
COMPILED = ("cnn", "lenet")

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
        for name, figures in PARTS[part]():
            kept = [r for r in results.read(out) if (r["part"], r["name"]) != (part, name)]
            results.write(out, [*kept, {"part": part, "name": name, **figures, "environment": results.environment()}])
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
    if model in COMPILED:
        laps["fl-sim compiled, 2 processes"] = Lap("compiled", model, fewer, targets=many, processes=2)
    return laps


def scaling() -> Mapping[str, Lap]:
    """One process on more and more targets or starts; then two."""
    laps = {f"targets {many}": Lap("fl-sim", "cnn", 240 // max(many, 4), targets=many) for many in (1, 4, 16, 64)}
    laps |= {f"restarts {many}": Lap("fl-sim", "cnn", 240 // many, restarts=many) for many in (4, 16)}
    return laps | {"targets 16, 2 processes": Lap("fl-sim", "cnn", 15, targets=16, processes=2)}


def _timed(laps: Mapping[str, Lap]) -> dict[str, list[float]]:
    """Milliseconds a step of one target and start, in turns, so that a slow minute slows all."""
    found: dict[str, list[float]] = {name: [] for name in laps}
    for _ in range(REPEATS):
        for name, lap in laps.items():
            found[name].append(round(1000 * step_seconds(lap), 3))
    return found


def _networks() -> Iterator[tuple[str, dict[str, Any]]]:
    for model in NETWORKS:
        yield model, {"ms": _timed(rivals(model))}


def _scaling() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "cnn", {"ms": _timed(scaling())}


PARTS: Mapping[str, Callable[[], Iterator[tuple[str, dict[str, Any]]]]] = MappingProxyType(
    {
        "networks": _networks,
        "scaling": _scaling,
        "derivative": derivative.measure,
        "limit": flops.measure,
        "federation": federated.measure,
        "quality": quality.measure,
    }
)

if __name__ == "__main__":
    app()
