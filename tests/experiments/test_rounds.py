"""Attacks that join rounds, through the whole pipeline."""

import json
from pathlib import Path

import pytest

from experiments import config
from experiments.check import check
from fl_sim.core.errors import ConfigError
from tests.experiments.runs import records, run_tiny
from tests.experiments.studies import TINY

BOTH = """[data]
per_client = 1
[adversary]
defense = "parameters"
labels = true
[[attacks]]
name = "bayes"
steps = 60
[[attacks]]
name = "bayes"
label = "joint"
joint = true
steps = 60
"""
STUDY = TINY.replace("rounds = 2", "rounds = 3").replace(
    TINY[TINY.index("[[attacks]]") : TINY.index("[evaluation]")], BOTH
)


def test_a_joint_attack_is_given_all_rounds_up_to_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run_tiny(folder, STUDY)
    found = records(folder)
    for (_, attack, number, _), record in found.items():
        assert record["rounds"] == ([*range(1, number + 1)] if attack == "joint" else [number])
    noisy = "defense=gaussian(std=0.1)"
    gains = [found[noisy, "joint", 3, c]["psnr"][0] - found[noisy, "bayes", 3, c]["psnr"][0] for c in (0, 1)]
    assert min(gains) > 0
    rows = json.loads((folder / "summary.json").read_text())["rows"]
    assert {row["attack"]: row["rounds"] for row in rows} == {"bayes": 1, "joint": 3}
    page, table = ((folder / name).read_text() for name in ("report.html", "table.md"))
    assert "joins up to 3 rounds" in page
    assert "joins up to 3 rounds" in table


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.per_client=2", "client 0 uses others in round 2.*data.per_client = 1"),
        ('grid.defense=["ats"]', "Ats changes them anew"),
        ('grid.defense=[{name="precode", width=4}]', "draws"),
        ('adversary.view="aggregate"', "gradients of one client"),
    ],
)
def test_rounds_of_other_images_are_refused_before_anything_is_run(override: str, message: str) -> None:
    study = config.load_dict(config.parse(STUDY, "test", [override]), "test")
    with pytest.raises(ConfigError, match=message):
        check(study)
