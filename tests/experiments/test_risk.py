"""Predicted risk through the whole pipeline."""

from pathlib import Path

import pytest

from experiments import config
from experiments.check import check
from experiments.judge import Judge
from experiments.risk import Exposure
from fl_sim.core.errors import ConfigError
from fl_sim.runtime.cells import Key
from tests.experiments.runs import records, run_tiny
from tests.experiments.studies import TINY

RISK = 'lpips = false\nrisk = ["k15", {name = "i2f", steps = 8}, "snr"]'
STUDY = TINY.replace("rounds = 2", "rounds = 1\nbatch_size = 2").replace("lpips = false", RISK)


def test_each_record_stands_beside_its_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, asked = tmp_path / "run", list[Key]()
    exposure = Judge.exposure

    def counted(judge: Judge, key: Key) -> Exposure:
        asked.append(key)
        return exposure(judge, key)

    monkeypatch.setattr(Judge, "exposure", counted)
    run_tiny(folder, STUDY)
    found = records(folder)
    assert len(asked) == len(found) / 2  # once for both attacks
    for (cell, attack, number, client), record in found.items():
        if cell == "defense=none":
            assert record["predicted"] == {"k15": None, "i2f": None, "snr": None}
            assert record["notes"]["i2f"] == "the update was sent as it is"
        else:
            assert [len(values) for values in record["predicted"].values()] == [2, 2, 2]
            assert record["predicted"] == found[cell, "ratio", number, client]["predicted"], attack
    assert 'id="predicted"' in (folder / "report.html").read_text()


def test_what_there_is_not_is_refused_before_anything_is_run() -> None:
    for risk, message in (('["k16"]', "no predictor 'k16'.*did you mean 'k15'"), ('["snr", "snr"]', "each predictor")):
        study = config.load_dict(config.parse(TINY, "test", [f"evaluation.risk={risk}"]), "test")
        with pytest.raises(ConfigError, match=message):
            check(study)
