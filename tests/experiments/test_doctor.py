"""What ``fl-sim doctor`` finds, and that its exit code says so."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from experiments import doctor
from experiments.doctor import CHECKS, Check
from tests.experiments.command import fl_sim


def test_packages_are_as_required() -> None:
    assert CHECKS["packages"]("packages", None).state == "ok"


def test_a_missing_or_old_package_breaks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requires", lambda _: ["torch>=99", "no-such-package", "ruff; extra == 'dev'"])
    found = CHECKS["packages"]("packages", None)
    assert found.state == "broken"
    assert "torch is" in found.says
    assert "no-such-package is missing" in found.says
    assert "ruff" not in found.says
    assert doctor._unmet(Requirement("torch>=1")) is None


def test_another_python_breaks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CHECKS["python"]("python", None).state == "ok"
    monkeypatch.setattr(doctor, "PYTHON", ((3, 99), (4, 0)))
    assert CHECKS["python"]("python", None).state == "broken"


def test_data_and_weights_that_are_found_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FL_SIM_DATA", raising=False)
    monkeypatch.setenv("FL_SIM_CACHE", str(tmp_path / "cache"))
    assert [CHECKS[name](name, str(tmp_path)).state for name in ("data", "weights")] == ["note", "note"]
    for place in ("MNIST/raw/train-images-idx3-ubyte.gz", "weights/squeezenet1_1_features.pth"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()
    found = CHECKS["data"]("data", str(tmp_path))
    assert "not here: cifar10, cifar100" in found.says
    assert CHECKS["weights"]("weights", str(tmp_path)).state == "ok"


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (subprocess.CompletedProcess([], 0, "29.1.3\n", ""), "ok"),
        (subprocess.CompletedProcess([], 1, "\n", "permission denied"), "note"),
    ],
)
def test_docker_is_asked(
    answer: "subprocess.CompletedProcess[str]", state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/bin/docker")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    assert CHECKS["docker"]("docker", None).state == state


def test_telemetry_is_off_unless_the_user_turns_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CHECKS["network"]("network", None).state == "ok"
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    assert "RAY_USAGE_STATS_ENABLED=0" in CHECKS["network"]("network", None).says


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("note", 0), ("broken", 1)])
def test_the_exit_code_is_1_where_something_needed_is_broken(
    state: Any, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", {"ray": lambda name, _: Check(name, state, "says", "do")})
    assert fl_sim(monkeypatch, "doctor", "--json") == code
    assert json.loads(capsys.readouterr().out)["checks"] == [
        {"name": "ray", "state": state, "says": "says", "do": "do"}
    ]


def test_a_check_that_raises_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(name: str, data_dir: str | None) -> Check:
        raise ImportError("libcudart.so")

    monkeypatch.setattr(doctor, "CHECKS", {"gpu": raising})
    assert [(one.state, "libcudart" in one.says) for one in doctor.examine(None)] == [("broken", True)]


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray_starts() -> None:
    assert CHECKS["ray"]("ray", None).state in {"ok", "note"}
