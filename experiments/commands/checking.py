"""What can be said of a study before it is run."""

import json as json_
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from experiments import config, terminal
from experiments.commands.shell import out, text_of


def check(study_name: str, overrides: Sequence[str], points: int, data_dir: Path | None, *, json: bool) -> None:
    """Build everything once, then print what each cell promises."""
    from experiments.check import check as checked
    from experiments.check import load
    from experiments.forecast import forecast

    place = text_of(data_dir)
    rows = [asdict(forecast(cell, place, points)) for cell in checked(load(config.find(study_name), overrides), place)]
    if json:
        print(json_.dumps({"study": study_name, "cells": rows}, indent=1))
    else:
        out.print(terminal.forecasts(rows))
