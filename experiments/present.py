"""Stage four: the run folder as a page, a table and a machine-readable summary."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from attacks.likelihoods import informs
from experiments.audit.cell import again
from experiments.audit.judge import AuditJudge, judge_of
from experiments.build import Cell, attack
from experiments.judge import Judge
from experiments.knowledge import empty_observations
from experiments.pipeline import Run
from experiments.report import (
    Picture,
    ReportInput,
    markdown,
    render,
    render_comparison,
    summarise_comparison,
    summary,
)
from fl_sim.core.contracts import ModelDefense
from fl_sim.core.mechanism import has_estimate
from fl_sim.core.types import Reconstruction, UpdateKind
from fl_sim.metrics.matching import match
from fl_sim.runtime import files
from fl_sim.runtime.cells import Key

JSON = dict[str, Any]
_BLIND = 6  # reconstructions pictured of whose originals nothing is known
_SHARES = {"best": 1.0, "median": 0.5, "worst": 0.0}  # of the way from the worst to the best image: what is pictured


class Presented(NamedTuple):
    """The page's path, the summary's rows, and what both are made from."""

    page: str
    rows: list[JSON]
    input: ReportInput


def present(run: Run) -> Presented:
    """Write ``report.html``, ``table.md`` and ``summary.json``."""
    found = report_input(run)
    path = run.store.path / "report.html"
    told = summary(found)
    files.write(path, render(found).encode())
    files.write(run.store.path / "table.md", markdown(found).encode())
    files.write_json(run.store.path / "summary.json", told)
    return Presented(str(path), told["rows"], found)


def compare(runs: Mapping[str, ReportInput], page: Path) -> JSON:
    """Write several runs, by name, as one page, and what it says as JSON beside it; returns that.

    Raises:
        ConfigError: They do not compare.
    """
    told = summarise_comparison(runs)
    files.write(page, render_comparison(runs).encode())
    files.write_json(page.with_suffix(".json"), told)
    return told


def report_input(run: Run) -> ReportInput:
    about = run.store.about()
    records = list(run.store.records())
    return ReportInput(
        study=run.study.as_dict(),
        question=about["question"],
        study_hash=about["hash"],
        attacks_hash=about["attacks_hash"],
        versions=about["versions"],
        command=about["command"],
        created=about["created"],
        cells=[{"name": c.name, "axes": dict(c.axes), "defense": c.defense} for c in run.cells],
        records=records,
        training={c.name: run.store.cell(c.folder).training() for c in run.cells},
        pictures=[picture for cell in run.cells for picture in pictures(run, cell, records)],
        adaptive=frozenset(adaptive(run)),
        guarantees={c.name: found for c in run.cells if (found := c.guarantee(run.data_dir))},
        diagnoses=about.get("audit", {}).get("findings", []),
    )


def adaptive(run: Run) -> list[tuple[str, str]]:
    """Cell and attack, where the attack is granted the defense and makes use of it; never of an aggregate."""
    return [
        (cell.name, part.key())
        for cell in run.cells
        if cell.study.adversary.defense != "unknown" and cell.study.adversary.view == "client"
        for part in cell.study.attacks
        if "defense" in attack(part).needs and _usable(cell, run.data_dir)
    ]


def _usable(cell: Cell, data_dir: str | None) -> bool:
    """Whether its defenses' density can be used; where only their kind is granted, with estimated parameters."""
    defenses, level = cell.defenses(), cell.study.adversary.defense
    kind: UpdateKind = "gradient" if cell.study.federation.mode == "fedsgd" else "delta"
    known = [type(d) for d in defenses if not isinstance(d, ModelDefense)]
    one_step = level != "kind" and all(seen.one_step for seen, _ in empty_observations(cell, data_dir))
    return informs(defenses, kind, one_step=one_step) and (level != "kind" or all(map(has_estimate, known)))


def pictures(run: Run, cell: Cell, records: Sequence[JSON]) -> list[Picture]:
    """Best, median and worst image of each attack; the truth is recomputed."""
    judge = judge_of(cell, run.data_dir, run.store.cell(cell.folder))
    found = []
    for attack_name in cell.reported():
        mine = [r for r in records if r["cell"] == cell.name and r["attack"] == attack_name]
        images = sorted((p, r["round"], r["client"], i) for r in mine for i, p in enumerate(r["psnr"] or ()))
        places = {round(share * (len(images) - 1)): rank for rank, share in reversed(_SHARES.items())} if images else {}
        found += [_picture(judge, attack_name, images[place], places[place]) for place in sorted(places, reverse=True)]
        if isinstance(judge, AuditJudge) and not images:
            found += [
                unjudged(judge, attack_name, Key(r["round"], r["client"])) for r in mine[:_BLIND] if not r["reason"]
            ]
    return found


def _picture(judge: Judge, attack_name: str, image: tuple[float, int, int, int], rank: str) -> Picture:
    psnr, round_, client, place = image
    key = Key(round_, client)
    guess, real = judge.place.result(attack_name, key), judge.truth(key).images
    assert isinstance(guess, Reconstruction)  # it has a record with metrics
    unrelated, trained = judge.unrelated(attack_name, key), judge.trained_on(key)
    return Picture(
        cell=judge.cell.name,
        attack=attack_name,
        round=round_,
        client=client,
        original=_pixels(real[place]),
        reconstruction=_pixels(guess.images[match(guess.images, real)][place]),
        control=None if unrelated is None else _pixels(unrelated[match(unrelated, real)][place]),
        psnr=psnr,
        trained=None if trained is None else _pixels(trained[place]),
        rank=rank,
    )


def unjudged(judge: AuditJudge, attack_name: str, key: Key) -> Picture:
    """The first image of a reconstruction whose original is not known, beside that of the second run."""
    guess, second = judge.place.result(attack_name, key), judge.place.result(again(attack_name), key)
    assert isinstance(guess, Reconstruction)  # it has a record without a reason to fail
    unrelated, first = judge.unrelated(attack_name, key), guess.images[:1]
    seconds = second.images if isinstance(second, Reconstruction) else None
    return Picture(
        cell=judge.cell.name,
        attack=attack_name,
        round=key.round,
        client=key.client,
        original=None,
        reconstruction=_pixels(first[0]),
        control=None if unrelated is None else _pixels(unrelated[0]),
        psnr=None,
        second=None if seconds is None else _pixels(seconds[match(seconds, guess.images)][0]),
    )


def _pixels(image: Tensor) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """``(C, H, W)`` in [0, 1] to ``(H, W, C)`` uint8."""
    return (image * 255).round().byte().permute(1, 2, 0).numpy()
