"""Finding settings for attacks."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import config
from experiments.commands.shell import err, executor_named, logging_to, out, text_of


def tune(
    study_name: str,
    overrides: Sequence[str],
    folder: Path | None,
    data_dir: Path | None,
    executor: str,
    **plan: Any,
) -> None:
    """Try the values that the study's attacks list under ``tune``; print the best as TOML, keep them in tuned.json."""
    from experiments.check import check, load
    from experiments.tune import Plan, Tuning, as_toml, edges
    from experiments.watch import Bars
    from fl_sim.runtime import files
    from fl_sim.runtime.store import RunStore

    study = load(config.find(study_name), overrides)
    check(study, text_of(data_dir))
    place = folder or Path("runs") / f"{study.name}-tune"
    how = Plan(**plan)
    command = shlex.join(["fl-sim", "tune", study_name, *overrides]) + f" {how}"
    with RunStore(place) as store, logging_to(place / "log.txt"), Bars(err, rounds=0, attacks=0, judgements=0) as watch:
        tuning = Tuning(
            study=study,
            store=store,
            plan=how,
            command=command,
            data_dir=text_of(data_dir),
            executor=executor_named(executor),
        )
        found = tuning(watch)
        files.write_json(place / "tuned.json", {"study": study.name, "command": command, "tuned": found})
    for edge in edges(study, found):
        err.print(f"warning: {edge}: try more", soft_wrap=True, markup=False)
    out.print(f"# found by: {command}\n{as_toml(found)}", soft_wrap=True, markup=False)
