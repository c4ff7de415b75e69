"""Flower's command line is believed by its words, not by its exit code."""

import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.deploy import keys
from experiments.deploy.flower import Flower
from experiments.deploy.place import Place
from fl_sim.core.errors import FlSimError


def answering(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[tuple[str, ...]]:
    """``flwr`` gives these one after the other, the last for ever, and always exits with 0."""
    asked = list[tuple[str, ...]]()

    def command(self: Flower, *words: str) -> list[str]:
        asked.append(words)
        said = answers[min(len(asked), len(answers)) - 1]
        return [sys.executable, "-c", "import sys; print(sys.argv[1])", said]

    monkeypatch.setattr(Flower, "_command", command)
    monkeypatch.setattr("experiments.deploy.flower._EVERY", 0.0)
    return asked


@pytest.fixture
def flower(tmp_path: Path) -> Flower:
    place = Place(tmp_path)
    keys.make(place, 2)
    return Flower(place, "127.0.0.1:8000", insecure=False, patience=0.0)


def run_of(status: str) -> str:
    return f'{{"success": true, "runs": [{{"run-id": "7", "status": "{status}", "status-details": ""}}]}}'


def test_a_refusal_is_an_error(flower: Flower, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, r'{"success": false, "error-message": "Using SuperLink: x\n\n[code: 9] No."}')
    with pytest.raises(FlSimError, match=r"flwr supernode list at 127.0.0.1:8000: \[code: 9\] No"):
        flower.online()


def test_no_answer_is_an_error(flower: Flower, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, "Traceback")
    with pytest.raises(FlSimError, match="gave no answer: Traceback"):
        flower.ask("list")


def test_a_client_that_is_in_already_stays(flower: Flower, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, '{"success": false, "error-message": "[code: 23] Public key already in use."}')
    flower.register()
    assert [Path(words[2]).parent.name for words in asked] == ["0", "1"]


def test_a_run_is_followed_to_its_end(flower: Flower, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first answer is to the question for its log."""
    answering(monkeypatch, "a log", run_of("running"), run_of("starting"), run_of("finished:failed"))
    assert flower.follow("7")["status"] == "finished:failed"


def test_patience_has_an_end(flower: Flower, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, "a log", run_of("running"), "")
    with pytest.raises(FlSimError, match="gave no answer"):
        flower.follow("7")


def test_a_study_travels_whole(flower: Flower, monkeypatch: pytest.MonkeyPatch) -> None:
    apps = list[str]()

    def ask(self: Flower, *words: str) -> dict[str, str]:
        apps.append(Path(words[1], "pyproject.toml").read_text())
        return {"run-id": "7"}

    monkeypatch.setattr(Flower, "ask", ask)
    text = '# Quotes " and\n# lines?\nname = "x"\n'
    assert flower.submit(text, "mine.toml", "runs/x") == "7"
    app = tomllib.loads(apps[0])["tool"]["flwr"]["app"]
    assert app["config"] == {"study": "mine.toml", "text": text, "out": "runs/x"}
    assert app["components"]["serverapp"] == "experiments.app:server_app"


@pytest.mark.parametrize("insecure", [False, True])
def test_trust_is_in_the_superlinks_authority(flower: Flower, monkeypatch: pytest.MonkeyPatch, insecure: bool) -> None:
    told = "{'success': True, 'config': pathlib.Path(os.environ['FLWR_HOME'], 'config.toml').read_text()}"
    program = [sys.executable, "-c", f"import json, os, pathlib; print(json.dumps({told}))"]
    monkeypatch.setattr(Flower, "_command", lambda *_: program)
    found = tomllib.loads(replace(flower, insecure=insecure).ask("list")["config"])["superlink"]["fl-sim"]
    trust = {"insecure": True} if insecure else {"root-certificates": str(flower.place.ca)}
    assert found == {"address": "127.0.0.1:8000", **trust}
