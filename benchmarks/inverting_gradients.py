"""Inverting gradients against breaching's: measure, and write the report. See README.md."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import results
from benchmarks.case import case
from benchmarks.curves import curve
from benchmarks.film import Camera
from benchmarks.plan import PARTS, Job
from benchmarks.tools import TOOLS
from fl_sim.metrics.image import psnr
from fl_sim.training.local import single_threaded

app = typer.Typer(add_completion=False)
Out = Annotated[Path, typer.Option(help="The file of results; the report is written beside it.")]


@app.command()
def run(part: Annotated[str, typer.Argument(help=", ".join(PARTS))], out: Out = results.PATH) -> None:
    """Run the jobs of PART that have no record yet."""
    if part not in PARTS:
        raise typer.BadParameter(f"expected one of {', '.join(PARTS)}, got {part!r}")
    records = results.read(out)
    for job in PARTS[part]:
        if any(record["job"] == asdict(job) for record in records):
            continue
        records.append(measure(job))
        results.write(out, records)
        done = records[-1]
        print(f"{job.part} {job.tool} {dict(job.options)} image {job.image}: {done['psnr']} dB", flush=True)


@app.command()
def report(out: Out = results.PATH) -> None:
    """Write the table and the figure of the records so far."""
    from benchmarks import report as pages

    pages.write(results.read(out), out)


def measure(job: Job) -> results.Record:
    """Run one attack on one thread and judge its answer and its frames."""
    seen, model, truth = case(job.model, job.image)
    camera, before = Camera(job.every), time.process_time()
    with single_threaded():
        guess = TOOLS[job.tool](seen, model, job.options, camera, job.image)
    return {
        "job": asdict(job),
        "psnr": round(psnr(guess.images, truth.images).item(), 3),
        "label_found": bool(torch.equal(guess.labels, truth.labels)),
        "outcome": guess.outcome,
        "loss": guess.loss,
        "iterations": guess.budget.iterations,
        "seconds": round(guess.budget.seconds, 1),
        "cpu_seconds": round(time.process_time() - before, 1),
        "curve": curve(camera.frames, truth.images)._asdict(),
        "environment": results.environment(),
    }


if __name__ == "__main__":
    app()
