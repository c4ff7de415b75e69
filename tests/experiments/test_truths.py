"""Behind a data defense there are two truths, and a defense in the model is in everyone's model."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import config
from experiments.build import cells
from experiments.commands.installed import _defenses
from experiments.knowledge import trained_on, truth
from experiments.report.markdown import TRAINED
from fl_sim.core.stochastic import drawing
from tests.experiments.runs import records, run_tiny

STUDY = """# Two truths?
name = "truths"
model = {name = "mlp", widths = [512]}
[federation]
clients = 2
rounds = 1
batch_size = 2
[[attacks]]
name = "rank"
[evaluation]
test_images = 20
public_images = 20
lpips = false
[grid]
defense = ["none", "ats", {name = "precode", width = 16}]
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("truths") / "run"
    torch.set_num_threads(1)
    run_tiny(folder, STUDY)
    return folder


def test_an_exact_attack_finds_the_image_trained_on_and_not_the_original(done: Path) -> None:
    found = records(done)
    for client in (0, 1):
        plain, moved = found["defense=none", "rank", 1, client], found["defense=ats", "rank", 1, client]
        assert plain["trained"] is None
        assert min(plain["psnr"]) > 60
        assert max(moved["psnr"]) < 30
        assert min(moved["trained"]["psnr"]) > 60
        assert min(moved["trained"]["ssim"]) > 0.99
        assert max(moved["trained"]["mse"]) < 1e-5
        assert moved["trained"]["lpips"] is None
        assert [len(v) for k, v in moved["trained"].items() if v] == [2, 2, 2]


def test_both_are_told_wherever_results_are(done: Path) -> None:
    rows = {row["defense"]: row for row in json.loads((done / "summary.json").read_text())["rows"]}
    assert rows["none"]["trained"] is rows["precode(width=16)"]["trained"] is None
    assert rows["ats"]["trained"]["psnr"]["mean"] > rows["ats"]["psnr"]["mean"] + 30
    table = [line for line in (done / "table.md").read_text().splitlines() if line.startswith("|")]
    (place,) = [i for i, line in enumerate(table) if TRAINED in line]
    assert table[place].count("|") == table[place - 1].count("|")
    page = (done / "report.html").read_text()
    assert page.count(TRAINED) == 1
    assert 'alt="trained on' in page


def test_a_bottleneck_is_no_secret_to_an_exact_attack(done: Path) -> None:
    """On what was trained and attacked with it: K10 through the whole pipeline."""
    behind = [r for key, r in records(done).items() if key[0] == "defense=precode(width=16)"]
    assert len(behind) == 2
    assert all(min(record["psnr"]) > 60 for record in behind)


def test_the_truths_are_the_clients_own_and_what_it_made_of_them() -> None:
    for cell in cells(config.load_dict(_study(), "test")):
        job = cell.job(None)
        own, made = truth(job, (1, 0), 1), trained_on(job, (1, 0), 1)
        if cell.defense != "ats":
            assert made is None
            continue
        assert made is not None
        assert made.shape == own.images.shape
        alone = trained_on(job, (0,), 1)
        assert alone is not None
        assert torch.equal(made[2:], alone)
        assert (made - own.images).flatten(1).abs().max(1).values.min() > 0.01


def test_server_clients_and_attacks_have_the_models_defenses() -> None:
    plain, _, behind = cells(config.load_dict(_study(), "test"))
    assert not drawing(plain.job(None).model())
    net = behind.job(None).model()
    assert len(drawing(net)) == 1
    other = behind.model(behind.data(None).task())()
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), other.parameters(), strict=True))


def test_precode_is_listed_with_what_it_changes() -> None:
    (row,) = [row for row in _defenses() if row["name"] == "precode"]
    assert row["changes"] == "model"
    assert "ratio" in row["density"]


def _study() -> dict[str, Any]:
    return tomllib.loads(STUDY)
