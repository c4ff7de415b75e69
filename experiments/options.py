"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Change the study: federation.rounds=1; KEY= unsets."),
]
Folder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Folders = Annotated[list[Path], typer.Argument(metavar="RUN...", help="A run folder, or several to compare.")]
Page = Annotated[
    Path | None, typer.Option("--out", help="The comparison's page; comparison.html beside the first run by default.")
]
Out = Annotated[Path | None, typer.Option(help="The run folder; runs/NAME where not given.")]
DataDir = Annotated[
    Path | None, typer.Option(envvar="FL_SIM_DATA", help="Where data sets and weights are looked for first.")
]
Where = Annotated[
    str, typer.Option("--executor", help="ray: Flower's simulation and attack actors; inline: this process.")
]
RayAddress = Annotated[
    str | None, typer.Option("--ray-address", help="Attack on this Ray cluster, of which this machine is a part: auto.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over: delete the run folder first.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
FailIf = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-if",
        metavar="LIMIT",
        help="Exit 3 where an attack on a defended setting breaks this, such as 'psnr.p95 > 25'; can be repeated.",
    ),
]
