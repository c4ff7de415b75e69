"""Tables for a terminal of 80 columns or more, and how far long work is."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

_EVERY = 5.0  # seconds between two lines where there is no terminal
_CAPTION = (
    "PSNR in dB. control: median of the same attack on an unrelated gradient. "
    "images trained on: those that a data defense made. risk: share of images farther off than "
    "delta. found: the true image comes first in a line-up, of n."
)
_PREDICTED = (
    "PSNR: predicted, in dB, of a posterior mean with a Gaussian prior fitted to public images, linearised at some of "
    "them; no bound: attacks with a better prior exceed it, on MNIST by 3 to 5 dB. "
    "blind: of who sees no update. noise: norms, over what clipping leaves at most and over what it is added to."
)


def results(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows of ``experiments.report.summarise``: a line a setting, and under it one an attack."""
    table = Table(box=box.SIMPLE, pad_edge=False, caption=_CAPTION, caption_justify="left")
    table.add_column("", overflow="fold")
    for name in ("median", "mean [95 %]", "control", "risk", "found"):
        table.add_column(escape(name), justify="right", no_wrap=True)
    for setting, mine in groupby(rows, key=lambda row: row["setting"]):
        attacks = list(mine)
        accuracy = attacks[0]["accuracy"]
        reached = "" if accuracy is None else f"\naccuracy {accuracy:.1%}"
        table.add_row(f"[bold]{escape(setting)}[/]{reached}")
        for row in attacks:
            table.add_row(*map(escape, _cells(row)))
            if trained := row["trained"]:
                psnr = trained["psnr"]
                table.add_row("    images trained on", f"{psnr['median']:.1f}", _mean(psnr), "", "", "")
    return table


def listing(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Rows of strings that all have the same keys, a column each."""
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    for column in rows[0]:
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    for row in rows:
        table.add_row(*(escape(str(value)) for value in row.values()))
    return table


def catalogue(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """A name beside its last column's text, and below that whatever else is said of it."""
    table = Table(title=title, box=box.SIMPLE, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        *others, about = (key for key in row if key != "name")
        lines = [escape(str(row[about]))]
        lines += [f"[dim]{key}:[/] {escape(str(row[key]))}" for key in others if row[key]]
        table.add_row(f"[bold]{escape(row['name'])}[/]", "\n".join(lines))
    return table


def diagnoses(findings: Sequence[Mapping[str, Any]]) -> Table:
    """The findings of :func:`experiments.audit.diagnosis.diagnose`; those that are wrong say what to do."""
    table = Table(box=box.SIMPLE, title="what the record says of itself", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    colours = {"wrong": "red", "fits": "green"}
    for one in findings:
        said = [one["says"], f"in {one['wrong']} of {one['told']} updates; {one['remedy']}"]
        colour = colours.get(one["verdict"], "dim")
        table.add_row(
            one["diagnosis"],
            f"[{colour}]{one['verdict']}[/]",
            escape("\n".join(said if one["verdict"] == "wrong" else said[:1])),
        )
    return table


def checked(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows of :func:`experiments.doctor.examine`."""
    table = Table(box=box.SIMPLE, show_header=False)
    for narrow in (True, True, False):
        table.add_column(no_wrap=narrow, overflow="fold")
    colours = {"ok": "green", "note": "yellow", "broken": "red"}
    for row in rows:
        colour = colours[row["state"]]
        said = "\n".join(filter(None, [row["says"], row["do"]]))
        table.add_row(row["name"], f"[{colour}]{row['state']}[/]", escape(said))
    return table


def forecasts(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows of :class:`experiments.forecast.Forecast`, a cell each."""
    from experiments.report.units import privacy

    table = Table(box=box.SIMPLE, pad_edge=False, caption=_PREDICTED, caption_justify="left")
    table.add_column("", overflow="fold")
    for name in ("noise / clip", "noise / signal", "PSNR", "blind"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        said = [] if row["epsilon"] is None else [f"{privacy(row['epsilon'])} at the end"]
        said += [row["reason"]] if row["reason"] else []
        figures = [row["noise_over_clip"], row["noise_over_signal"]]
        shown = ["-" if figure is None else f"{figure:.3g}" for figure in figures]
        psnr = "-" if row["psnr"] is None else f"{row['psnr']:.1f}"
        table.add_row("\n".join(map(escape, [row["cell"], *said])), *shown, psnr, f"{row['blind']:.1f}")
    return table


def _cells(row: Mapping[str, Any]) -> list[str]:
    psnr, seen, unrelated = row["psnr"], row["identified"], row["controls"]["unrelated_gradient"]
    if psnr is None and (told := row["confidence"]):
        figures = [f"{name} {told[name]['median']:.2f}" for name in ("agreement", "fit") if told[name]]
        return [f"  {row['attack']}", "-", ", ".join(figures) or "no truth", "-", "-", "-"]
    if psnr is None:
        return [f"  {row['attack']}", "-", "failed", "-", "-", "-"]
    return [
        f"  {row['attack']}",
        f"{psnr['median']:.1f}",
        _mean(psnr),
        "-" if unrelated is None else f"{unrelated['median']:.1f}",
        "-" if row["risk"] is None else f"{row['risk']['value']:.2f}",
        "-" if seen is None else f"{seen['count']}/{seen['n']}",
    ]


def _mean(psnr: Mapping[str, Any]) -> str:
    spread = "" if psnr["low"] is None else f" [{psnr['low']:.1f}, {psnr['high']:.1f}]"
    return f"{psnr['mean']:.1f}{spread}"
