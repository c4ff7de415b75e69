"""What is promised before anything is run."""

import json
from collections.abc import Callable
from math import sqrt
from pathlib import Path

import pytest

from experiments import config
from experiments.build import cells
from experiments.forecast import Forecast, forecast
from fl_sim.metrics.accounting import epsilon
from tests.experiments.command import fl_sim
from tests.experiments.studies import TINY

WEIGHTS = 64 * 16 + 16 + 16 * 10 + 10
Write = Callable[[str], Path]


@pytest.fixture
def told(study_file: Write) -> Callable[..., Forecast]:
    """Of the tiny study with a stack of defenses."""

    def of(defenses: str, *overrides: str) -> Forecast:
        study = config.load(study_file(TINY), [f"grid.defense=[{defenses}]", *overrides])
        (cell,) = cells(study)
        return forecast(cell, None, points=1)

    return of


def test_noise_over_clip_and_epsilon_at_the_end(told: Callable[..., Forecast]) -> None:
    found = told("[{name='clip', norm=2.0}, {name='gaussian', std=8.0}]", "federation.cohort=1", "federation.rounds=7")
    assert found.noise_over_clip == pytest.approx(8.0 * sqrt(WEIGHTS) / 2.0)
    assert found.epsilon is not None
    assert found.epsilon["protects"] == "client"
    assert epsilon(2.0, 4) <= found.epsilon["most"] <= epsilon(2.0, 7)  # two clients share seven rounds


def test_dpsgd_divides_its_noise_by_the_batch(told: Callable[..., Forecast]) -> None:
    found = told("{name='dpsgd', clip=3.0, noise_multiplier=0.5}", "federation.batch_size=4")
    assert found.noise_over_clip == pytest.approx(0.5 * sqrt(WEIGHTS) / 4)
    assert found.psnr is not None
    assert found.epsilon is not None
    assert found.epsilon["most"] == pytest.approx(epsilon(0.5, 2))


def test_more_noise_is_nearer_to_seeing_nothing(told: Callable[..., Forecast]) -> None:
    found = [told(f"{{name='gaussian', std={std}}}") for std in (1e-3, 0.1, 100.0)]
    psnrs = [f.psnr or 0.0 for f in found]
    assert psnrs[0] > psnrs[1] + 10 > psnrs[2] + 10
    assert psnrs[2] == pytest.approx(found[2].blind, abs=0.1)
    assert all(f.noise_over_clip is None and f.epsilon is None for f in found)


@pytest.mark.parametrize(
    ("defenses", "override", "reason"),
    [
        ("'none'", "seed=0", "no Gaussian noise"),
        ("{name='laplace', scale=0.1}", "seed=0", "no Gaussian noise"),
        ("{name='gaussian', std=0.1}", "adversary.view='aggregate'", "only the sum"),
        ("['ats', {name='gaussian', std=0.1}]", "seed=0", "Ats: no density"),
    ],
)
def test_no_psnr_has_a_reason(defenses: str, override: str, reason: str, told: Callable[..., Forecast]) -> None:
    found = told(defenses, override)
    assert found.psnr is None
    assert reason in found.reason


def test_the_command_runs_nothing_and_prints_all_cells(
    study_file: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(study_file(TINY))
    assert fl_sim(monkeypatch, "check", path, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert [cell["psnr"] is None for cell in said["cells"]] == [True, False]
    assert fl_sim(monkeypatch, "check", path, "--points", "0") == 0
    assert "gaussian(std=0.1)" in capsys.readouterr().out
    assert fl_sim(monkeypatch, "check", path, "attacks=['no_such_attack']") == 2
    assert not (tmp_path / "runs").exists()
