"""Central differential privacy from study to report: private for others, and no obstacle to this server."""

import json
from pathlib import Path

import pytest

from fl_sim.federation.central import CENTRAL
from fl_sim.metrics.accounting import DELTA, epsilon
from tests.experiments.command import fl_sim
from tests.experiments.studies import TINY

PRIVATE = f"""strategy = "{CENTRAL}"
strategy_options = {{noise_multiplier = 4.0, clipping_norm = 0.1}}
"""


@pytest.mark.filterwarnings("ignore")
def test_the_report_says_against_whom_and_the_server_still_finds_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.toml").write_text(TINY.replace("rounds = 2\n", f"rounds = 2\n{PRIVATE}"))
    run = ["run", str(tmp_path / "tiny.toml"), "grid.defense=['none']", "--out", str(tmp_path / "run")]
    assert fl_sim(monkeypatch, *run, "--executor", "inline") == 0
    rows = json.loads((tmp_path / "run" / "summary.json").read_text())["rows"]
    expected = {"protects": "client", "against": "model", "delta": DELTA, "most": epsilon(2.0, 2)}
    assert all(row["epsilon"] == expected for row in rows)
    exact = next(row for row in rows if row["attack"] == "ratio")
    assert exact["psnr"]["median"] > 60
    said = "a client at delta 1e-05 against those who see the model, none against this server"
    assert said in (tmp_path / "run" / "table.md").read_text()
    assert said in (tmp_path / "run" / "report.html").read_text()
