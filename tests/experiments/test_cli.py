"""The command line as a user meets it: exit codes, messages on stderr, JSON alone on stdout."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from attacks.analytic.ratio import Ratio
from fl_sim.core.types import Reconstruction
from tests.experiments.command import fl_sim
from tests.experiments.studies import TINY

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.filterwarnings("ignore")  # the command line sends warnings to log.txt


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[[str], list[str]]:
    def arguments(text: str = TINY) -> list[str]:
        (tmp_path / "tiny.toml").write_text(text)
        return ["run", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "run"), "--executor", "inline"]

    return arguments


def test_json_is_one_document_and_all_is_done(
    tiny: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert fl_sim(monkeypatch, *tiny(), "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["jobs"] == 16
    assert said["failed"] == 0
    assert Path(said["report"]).exists()
    assert fl_sim(monkeypatch, *tiny()) == 0  # a second time: nothing to do
    assert "report:" in capsys.readouterr().out
    assert fl_sim(monkeypatch, "report", str(tmp_path / "run")) == 0
    assert fl_sim(monkeypatch, "report", str(tmp_path / "run"), "--fail-if", "psnr.max > 1000") == 0
    assert fl_sim(monkeypatch, "report", str(tmp_path / "run"), "--fail-if", "psnr.max > 0") == 3
    assert "over the limit: " in capsys.readouterr().err


def test_a_gate_is_not_passed_by_what_was_not_attacked(
    tiny: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert fl_sim(monkeypatch, *tiny()) == 0
    for done in (tmp_path / "run" / "cells").glob("*/reconstructions/ratio"):
        shutil.rmtree(done)
    records = tmp_path / "run" / "records.jsonl"
    kept = [line for line in records.read_text().splitlines() if json.loads(line)["attack"] != "ratio"]
    records.write_text("\n".join(kept) + "\n")
    assert fl_sim(monkeypatch, "report", str(tmp_path / "run"), "--fail-if", "psnr.max > 1000") == 3
    assert "the run is not finished" in capsys.readouterr().err
    assert fl_sim(monkeypatch, "report", str(tmp_path / "run")) == 0


def test_several_runs_are_compared_on_one_page(
    tiny: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert fl_sim(monkeypatch, *tiny()) == 0
    both = [str(tmp_path / "run"), str(shutil.copytree(tmp_path / "run", tmp_path / "again"))]
    assert fl_sim(monkeypatch, "report", *both) == 0
    assert "run again" in (tmp_path / "comparison.html").read_text()
    assert set(json.loads((tmp_path / "comparison.json").read_text())["runs"]) == {"run", "again"}
    capsys.readouterr()
    assert fl_sim(monkeypatch, "report", *both, "--fail-if", "psnr.max > 0") == 2
    assert fl_sim(monkeypatch, "report", both[0], "--out", str(tmp_path / "page.html")) == 2
    assert fl_sim(monkeypatch, "report", both[0], both[0]) == 2
    said = capsys.readouterr().err
    assert all(words in said for words in ("report them one by one", "into its own folder", "expected different runs"))


def test_failed_jobs_end_with_1(
    tiny: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def broken(*_: object) -> Reconstruction:
        raise MemoryError("no memory")

    monkeypatch.setattr(Ratio, "_reconstruct", broken)
    assert fl_sim(monkeypatch, *tiny()) == 1
    assert "8 attack jobs failed" in capsys.readouterr().err


def test_overrides_change_the_study(
    tiny: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, study, *options = tiny()
    overrides = ["federation.rounds=1", "grid.defense=['none']", "attack=ratio"]
    assert fl_sim(monkeypatch, run, study, *overrides, *options) == 2  # [[attacks]] is in the file already
    overrides[-1] = "attacks=['ratio']"
    assert fl_sim(monkeypatch, run, study, *overrides, *options) == 0
    assert len((tmp_path / "run" / "records.jsonl").read_text().splitlines()) == 2


def test_another_study_needs_fresh(
    tiny: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    small = ["federation.rounds=1", "grid.defense=['none']"]
    assert fl_sim(monkeypatch, *tiny(), *small) == 0
    assert fl_sim(monkeypatch, *tiny(), *small, "seed=1") == 2
    assert "differs in seed" in capsys.readouterr().err
    assert fl_sim(monkeypatch, *tiny(), *small, "seed=1", "--fresh") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "dmo"], "did you mean 'demo'"),
        (["run", "demo", "federation.clients=0"], "federation.clients"),
        (["run", "demo", "--executor", "slurm"], "expected one of ray, inline, got 'slurm'"),
        (["run", "mnist_noise", "--data-dir", "/nowhere"], "train-images-idx3-ubyte"),
        (["run"], "Missing argument"),
        (["run", "demo", "--fail-if", "leaks"], "expected METRIC.STATISTIC > NUMBER"),
        (["list", "attack"], "did you mean 'attacks'"),
        (["report", "/nowhere"], "expected a run folder"),
        (["attack", "/nowhere", "--attack", "ig"], "expected a run folder"),
        (["fly"], "No such command"),
    ],
)
def test_wrong_commands_end_with_2_and_say_why(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    monkeypatch.delenv("FL_SIM_DATA", raising=False)
    monkeypatch.setenv("FL_SIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    assert fl_sim(monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "runs").exists()


def test_fresh_deletes_only_runs(monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path) -> None:
    precious = tmp_path / "thesis.tex"
    precious.write_text("years")
    assert fl_sim(monkeypatch, "run", "demo", "--out", str(tmp_path), "--fresh") == 2
    assert precious.read_text() == "years"
    assert "delete it yourself" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["attacks", "defenses", "datasets", "models", "studies"])
def test_lists_are_json_on_demand(what: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert fl_sim(monkeypatch, "list", what, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows
    assert all(row["name"] for row in rows)
    assert fl_sim(monkeypatch, "list", what) == 0


def test_defenses_are_listed_with_units_leaks_and_densities(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert fl_sim(monkeypatch, "list", "defenses", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["gaussian"]["parameters"] == "std [update units], averaging=central"
    assert (rows["random_prune"]["leaks"], rows["random_prune"]["density"]) == ("mask", "its own")
    assert (rows["soteria"]["changes"], rows["dpsgd"]["density"]) == ("gradient", "its own")
    assert "dropped" in rows["soteria"]["density"]
    assert "transformed image" in rows["ats"]["density"]


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, experiments.cli; print([m for m in ('torch', 'flwr', 'ray', 'pydantic') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
