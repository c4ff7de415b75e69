"""The table and the figure of the records: Markdown and PNG, beside the file of results."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, TypeAlias

from benchmarks.curves import Band, Curve, by_iterations, by_seconds
from benchmarks.results import Record
from fl_sim.metrics.intervals import mean_interval
from fl_sim.runtime import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Series: TypeAlias = Mapping[str, Sequence[Record]]
"""Records of one part, by what was run."""

PARTS = {
    "cnn": "`cnn`, 430,102 weights, 1,000 steps",
    "convnet": "`convnet`, BatchNorm, 2,904,970 weights, 2,000 steps",
}
_COLOURS = ("#0072B2", "#D55E00", "#009E73")  # Okabe and Ito
_HEAD = """# Inverting gradients, measured

One exact CIFAR-10 test image a run (batch 1, no defense, eval mode); networks freshly initialised, seed 0; the label is
inferred by each attack itself. Images are numbered as in the test set and were settled before the runs that are
reported; runs of `cnn` on images 0 to 31 had taught us which iterate to keep, so that others stand here. PSNR of [0, 1]
images by `fl_sim.metrics.image.psnr`, of the image that the attack returns: the best by its own objective, with fl-sim
of the last eighth of its steps, with breaching of all. No attack sees the truth; guesses were kept along the way and
judged afterwards.

breaching runs its own `invertinggradients`, configured as shipped (cosine, signed Adam 0.1, total variation 0.2, box,
one trial) but for `max_iterations`. Both tools attack the same gradient on the same weights, normalise by the same mean
and std, and start from the same noise. Times are a single thread's on the processor, because the machine was shared.
"Last guess" is the median PSNR of where the search ended, which the attack did not return unless it was also the best.
"""


def write(records: Sequence[Record], out: Path) -> None:
    """``out`` with the suffixes .md and .png."""
    files.write(out.with_suffix(".md"), ("\n".join(_page(records, out.stem)) + "\n").encode())
    draw(records, out.with_suffix(".png"))


def _page(records: Sequence[Record], stem: str) -> Iterator[str]:
    yield _HEAD
    yield f"![PSNR against iterations and seconds]({stem}.png)\n"
    for part, title in PARTS.items():
        if series := by_label(records, part):
            yield f"## {title}\n"
            yield from _summary(series)
    yield from _pairs(by_label(records, "convnet"))
    yield from _tuning(by_label(records, "tuning"))
    yield from _made(records)


def by_label(records: Sequence[Record], part: str) -> Series:
    """The part's records by tool and options, in the order in which these first came."""
    series: dict[str, list[Record]] = {}
    for record in records:
        if record["job"]["part"] == part:
            options = [f"{key} {value}" for key, value in record["job"]["options"].items() if key != "steps"]
            series.setdefault(", ".join([record["job"]["tool"], *options]), []).append(record)
    return series


def _summary(series: Series) -> Iterator[str]:
    yield "| attack | images | median PSNR, dB | mean (95 % interval) | least, most | last guess | labels | ms a step |"
    yield "|---|---|---|---|---|---|---|---|"
    for label, records in series.items():
        values = [record["psnr"] for record in records]
        pace = 1000 * median(record["cpu_seconds"] / record["iterations"] for record in records)
        found = sum(record["label_found"] for record in records)
        last = median(record["curve"]["psnr"][-1] for record in records)
        cells = f"{len(values)} | {median(values):.1f} | {_interval(values)} | {min(values):.1f}, {max(values):.1f}"
        yield f"| {label} | {cells} | {last:.1f} | {found} | {pace:.1f} |"
    yield ""


def _pairs(series: Series) -> Iterator[str]:
    """Image by image; gains are over the first, on the images that both were run on."""
    if len(series) < 2:
        return
    tables = {label: {r["job"]["image"]: r["psnr"] for r in records} for label, records in series.items()}
    first, *others = tables.values()
    yield f"| image | {' | '.join(tables)} |"
    yield "|---" * (1 + len(tables)) + "|"
    for image in first:
        yield f"| {image} | " + " | ".join(f"{t[image]:.1f}" if image in t else "" for t in tables.values()) + " |"
    gains = [_interval([psnr - first[image] for image, psnr in other.items() if image in first]) for other in others]
    yield f"| mean gain (95 % interval) | | {' | '.join(gains)} |\n"


def _tuning(series: Series) -> Iterator[str]:
    if not series:
        return
    first = next(iter(series.values()))
    images = ", ".join(str(record["job"]["image"]) for record in first)
    steps = first[0]["job"]["options"]["steps"]
    yield "## Which setting on the convnet\n"
    yield f"On images {images}, which are in no other table; {steps} steps, PSNR in dB. In the table above stands the"
    yield "preset as it ships; where the part `tuned` was run, a line with options is the best of these.\n"
    yield "| attack | mean | each |\n|---|---|---|"
    for label, records in series.items():
        values = [record["psnr"] for record in records]
        yield f"| {label} | {fmean(values):.1f} | {', '.join(f'{v:.1f}' for v in values)} |"
    yield ""


def _made(records: Sequence[Record]) -> Iterator[str]:
    yield "## Made with\n"
    made = {", ".join(f"{k} {v}" for k, v in record["environment"].items()): None for record in records}
    yield from (f"- {environment}" for environment in made)
    yield "\nRebuild: `python -m benchmarks.inverting_gradients` with `run cnn`, `run tuning`, `run convnet`,"
    yield "`run tuned` and `report`, one after the other."


def _interval(values: Sequence[float]) -> str:
    mean, low, high = mean_interval(values)
    return f"{mean:.1f}" if low is None else f"{mean:.1f} ({low:.1f} to {high:.1f})"


def draw(records: Sequence[Record], path: Path) -> None:
    """One row a network: PSNR against iterations, and against seconds."""
    from matplotlib.figure import Figure

    parts = [part for part in PARTS if by_label(records, part)]
    labels = dict.fromkeys(label for part in parts for label in by_label(records, part))
    colours = dict(zip(labels, _COLOURS, strict=False))
    figure = Figure(figsize=(9, 3.2 * len(parts)), layout="constrained")
    grid = figure.subplots(len(parts), 2, squeeze=False, sharey="row")
    for row, part in zip(grid, parts, strict=True):
        for label, chosen in by_label(records, part).items():
            curves = [Curve(**record["curve"]) for record in chosen]
            _band(row[0], by_iterations(curves), f"{label}: {len(curves)}", colours[label])
            _band(row[1], by_seconds(curves), label, colours[label])
        row[0].set(title=part, xlabel="iterations", ylabel="PSNR, dB: median, quartiles")
        row[1].set(title=part, xlabel="processor seconds, one thread")
        row[0].legend(frameon=False, title="images of each")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    files.write(path, buffer.getvalue())


def _band(axes: "Axes", band: Band, label: str, colour: str) -> None:
    axes.fill_between(band.at, band.low, band.high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(band.at, band.median, color=colour, label=label)
    axes.grid(color="#dfe3e8")
