"""The page: one HTML file that needs nothing else, neither a network nor a script."""

import base64
import io
import json
from importlib.resources import files
from itertools import chain, groupby
from math import sqrt

from experiments.report import units
from experiments.report.answer import findings, headline
from experiments.report.axes import CEILING, CONTROL_LINES
from experiments.report.cost import training_of
from experiments.report.drawing import styles
from experiments.report.figures import PER_IMAGE, PER_ROUND, is_single_round, leakage, training
from experiments.report.input import UNDEFENDED, Json, Picture, Pixels, ReportInput, attacks, settings
from experiments.report.letters import capabilities
from experiments.report.predicted import MEANINGS, predicted_risk, silent
from experiments.report.scope import scope
from experiments.report.stacks import stacks
from experiments.report.table import summarise
from experiments.report.threat import attacks_told, threat_model
from experiments.report.verdict import RULE
from experiments.report.whom import risks
from fl_sim.metrics import gifd
from fl_sim.metrics.image import ssim_settings
from fl_sim.metrics.perceptual import Lpips


def render(report: ReportInput) -> str:
    """The report as HTML; the same input gives the same text."""
    return fill("report.html.j2", context(report))


def fill(template: str, found: Json) -> str:
    """A template of this folder as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("experiments.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["units"] = units
    environment.globals["css"] = files("experiments.report").joinpath("report.css").read_text("utf-8")
    return environment.get_template(template).render(found)


def context(report: ReportInput) -> Json:
    """What the templates say, by the names they use."""
    rows = summarise(report)
    found = findings(report, rows)
    return {
        "report": report,
        "study": json.dumps(report.study, indent=2, ensure_ascii=False, default=str),
        "headline": headline(found, report.records),
        "findings": found,
        "rule": RULE,
        **_attacked(report),
        **_figures(report),
        "when": [] if is_single_round(report) else [(one.setting.label, one.rounds) for one in found if one.rounds],
        "risks": risks(report, rows),
        **_predicted(report),
        "pictures": _pictures(report),
        "rows": [(setting, list(members)) for setting, members in groupby(rows, lambda row: row["setting"])],
        "as_gifd": gifd.SETTINGS if any(row["gifd"] for row in rows) else None,
        **_tested(report),
        "transformed": any(row["trained"] for row in rows),
        "refused": _refused(report),
        "delta": next((row["risk"]["delta"] for row in rows if row["risk"]), None),
        "delta_is_default": not (report.study.get("evaluation") or {}).get("delta"),
        "budgets": _most_iterations(report),
        "measured": {"large": ssim_settings((32, 32)), "small": ssim_settings((8, 8)), "lpips": Lpips.settings},
        "lpips_missing": sorted({str(r["notes"]["lpips"]) for r in report.records if (r["notes"] or {}).get("lpips")}),
    }


def _tested(report: ReportInput) -> Json:
    """Test images, and half the 95 % interval of an accuracy of one half on them, in points."""
    images = (report.study.get("evaluation") or {}).get("test_images")
    return {"test_images": images, "margin": images and 98 / sqrt(images)}


def _attacked(report: ReportInput) -> Json:
    return {
        "scope": scope(report),
        "threats": threat_model(report.study),
        "attacks": list(attacks_told(report)),
        "letters": capabilities(report.study),
    }


def _figures(report: ReportInput) -> Json:
    return {
        "styles": styles(report),
        "stacks": stacks(report),
        "leakage": leakage(report),
        "leakage_note": PER_IMAGE if is_single_round(report) else PER_ROUND,
        "training": training(report),
        "ceiling": CEILING,
        "controls": CONTROL_LINES,
        "baseline": {s.defense for s in settings(report)} > {UNDEFENDED},
    }


def _predicted(report: ReportInput) -> Json:
    rows = predicted_risk(report)
    return {
        "predicted": [(setting, list(members)) for setting, members in groupby(rows, lambda row: row["setting"])],
        "predictors": {name: MEANINGS[name] for name in dict.fromkeys(row["predictor"] for row in rows)},
        "silent": silent(report),
    }


def _pictures(report: ReportInput) -> list[tuple[str, str, list[Json]]]:
    """By cell and attack, in the order given."""
    chosen = groupby(report.pictures, lambda picture: (picture.cell, picture.attack))
    return [(cell, attack, [_picture(picture) for picture in group]) for (cell, attack), group in chosen]


def _picture(picture: Picture) -> Json:
    images = {"original": picture.original, "reconstruction": picture.reconstruction, "control": picture.control}
    if picture.second is not None:
        images["second run"] = picture.second
    if picture.trained is not None:
        images["trained on"] = picture.trained
    return {
        "where": f"{picture.rank}: round {picture.round}, client {picture.client}".removeprefix(": "),
        "psnr": picture.psnr,
        "images": {name: None if pixels is None else _data_uri(pixels) for name, pixels in images.items()},
    }


def _data_uri(pixels: Pixels) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _refused(report: ReportInput) -> list[Json]:
    """Replies the server would not take, by setting and reason."""
    found: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for setting in settings(report):
        for row in chain.from_iterable(training_of(report, setting)):
            for refusal in row["refused"]:
                found.setdefault((setting.label, refusal["reason"]), []).append((row["round"], refusal["client"]))
    return [
        {
            "setting": setting,
            "reason": reason,
            "count": len(places),
            "rounds": sorted({place[0] for place in places}),
            "clients": sorted({place[1] for place in places}),
        }
        for (setting, reason), places in found.items()
    ]


def _most_iterations(report: ReportInput) -> dict[str, int | None]:
    """By attack, for one observation: the limit of every "could not recover"."""
    spent = {attack: [r["iterations"] for r in report.records if r["attack"] == attack] for attack in attacks(report)}
    return {attack: max(filter(None, numbers), default=None) for attack, numbers in spent.items()}
