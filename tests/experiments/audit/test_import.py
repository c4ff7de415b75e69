"""From AUDIT.toml to a report, as a user types it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch

from experiments import pipeline
from fl_sim.core.types import Protocol, Task
from fl_sim.federation.intercept import mean_update
from fl_sim.runtime.cells import CellStore, Key, record_to
from fl_sim.runtime.store import RunStore
from tests.conftest import TASK, observe
from tests.experiments.audit.record import Record, write_toml
from tests.experiments.command import fl_sim

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
pytestmark = pytest.mark.filterwarnings("ignore")  # the command line sends warnings to log.txt

MODEL = {"name": "mlp", "widths": [16]}
ATTACK = ("--attack", "inverting_gradients:steps=60", "--executor", "inline")


def record(client: int) -> Record:
    return Record(options={"widths": [16]}, images=1 + client, drawn=client)


def tree(folder: Path, clients: int = 2, task: Task = TASK, **more: Any) -> dict[str, Any]:
    """Clients with one image, two, ..., who all start from the same weights; with their truth."""
    updates = []
    for client in range(clients):
        one = record(client)
        before, after = one.trained()
        batch = one.batch()
        safetensors.torch.save_file(before, folder / "before.safetensors")
        safetensors.torch.save_file(after, folder / f"after{client}.safetensors")
        np.savez(folder / f"truth{client}.npz", images=batch.images.numpy(), labels=batch.labels.numpy())
        named = {"before": "before.safetensors", "after": f"after{client}.safetensors", "truth": f"truth{client}.npz"}
        updates.append({"client": client, "examples": len(batch.labels), **named})
    return {
        "name": "theirs",
        "model": MODEL,
        "task": {name: getattr(task, name) for name in ("image_shape", "classes", "mean", "std")},
        "protocol": {"mode": "fedavg", "learning_rate": 0.1, "batch_size": 8},
        "evaluation": {"lpips": False},
        "updates": updates,
        **more,
    }


def blind(whole: dict[str, Any]) -> dict[str, Any]:
    """Without the truth."""
    return whole | {"updates": [{k: v for k, v in one.items() if k != "truth"} for one in whole["updates"]]}


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]


def finished(monkeypatch: Patch, audit: Path, run: Path) -> Path:
    assert fl_sim(monkeypatch, "import", str(audit), "--out", str(run)) == 0
    assert fl_sim(monkeypatch, "attack", str(run), *ATTACK) == 0
    assert fl_sim(monkeypatch, "evaluate", str(run)) == 0
    assert fl_sim(monkeypatch, "report", str(run)) == 0
    return run


@pytest.mark.slow
def test_with_the_truth_it_is_judged_like_any_run(tmp_path: Path, monkeypatch: Patch) -> None:
    run = finished(monkeypatch, write_toml(tmp_path / "audit.toml", tree(tmp_path)), tmp_path / "run")
    first, second = records(run)
    assert (len(first["psnr"]), len(second["psnr"])) == (1, 2)
    assert first["psnr"][0] > 15
    assert first["candidates"] == 2
    assert first["controls"]["mean_image"] is None
    assert first["confidence"]["misfit"] < 0.1
    assert "median PSNR" in (run / "report.html").read_text()


def test_without_the_truth_there_is_confidence_and_no_psnr(tmp_path: Path, monkeypatch: Patch) -> None:
    run = finished(monkeypatch, write_toml(tmp_path / "audit.toml", blind(tree(tmp_path))), tmp_path / "run")
    for one in records(run):
        assert one["attack"] == "inverting_gradients"  # the second run is not a row of its own
        assert one["psnr"] is one["controls"] is one["identification_rank"] is None
        assert one["outcome"] == "out-of-steps"
    first = records(run)[0]["confidence"]
    assert first["agreement"][0] > 0.5
    assert first["fit"] > 0.5
    page, table = (run / "report.html").read_text(), (run / "table.md").read_text()
    assert "of 2 reconstructions the originals are not known" in page
    assert "How far reconstructions may be believed" in page
    assert "leaks" not in json.loads((run / "summary.json").read_text())["rows"][0]
    assert "| inverting_gradients | 0." in table
    with RunStore(run) as store:
        progress = pipeline.opened(store, "inline", None).progress()
    assert (progress["attacks"], progress["judgements"], progress["judged"]) == (4, 2, 2)  # each attack is run twice


@pytest.mark.slow
def test_public_images_make_controls_and_labels_can_be_granted(tmp_path: Path, monkeypatch: Patch) -> None:
    np.savez(tmp_path / "public.npz", images=np.random.default_rng(0).random((5, 1, 8, 8)))
    whole = tree(tmp_path, public="public.npz", adversary={"labels": True})
    run = finished(monkeypatch, write_toml(tmp_path / "audit.toml", whole), tmp_path / "run")
    first = records(run)[0]
    assert first["candidates"] == 7
    assert first["controls"]["nearest_public"]["psnr"][0] > 0
    assert first["label_accuracy"] == 1


def test_a_gradient_and_a_change_are_the_update_of_the_weights(tmp_path: Path, monkeypatch: Patch) -> None:
    whole = tree(tmp_path, clients=1)
    before, after = record(0).trained()
    change = {name: after[name] - before[name] for name in before}
    safetensors.torch.save_file(change, tmp_path / "change.safetensors")
    safetensors.torch.save_file({k: -10 * t for k, t in change.items()}, tmp_path / "gradient.safetensors")
    kinds = {}
    for way, mode in (("change", "fedavg"), ("gradient", "fedsgd")):
        update = {"before": "before.safetensors", way: f"{way}.safetensors", "examples": 1}
        more = {"updates": [update], "protocol": {"mode": mode, "learning_rate": 0.1}}
        audit = write_toml(tmp_path / f"{way}.toml", whole | more)
        assert fl_sim(monkeypatch, "import", str(audit), "--out", str(tmp_path / way)) == 0
        kinds[way] = CellStore(tmp_path / way / "cells" / "base").observation(Key(1, 0)).update.kind
    assert kinds == {"change": "delta", "gradient": "gradient"}


def test_a_mistake_ends_with_1_and_stands_in_the_report(tmp_path: Path, monkeypatch: Patch, capsys: Capture) -> None:
    whole = tree(tmp_path, clients=1, protocol={"mode": "fedavg", "learning_rate": 1.0})
    audit, run = write_toml(tmp_path / "audit.toml", whole), str(tmp_path / "run")
    assert fl_sim(monkeypatch, "import", str(audit), "--out", run, "--json") == 1
    wrong = [one for one in json.loads(capsys.readouterr().out)["findings"] if one["verdict"] == "wrong"]
    assert [one["diagnosis"] for one in wrong] == ["learning_rate"]
    assert fl_sim(monkeypatch, "report", run) == 0
    assert "as with a learning rate of 0.1, the protocol says 1" in (tmp_path / "run" / "report.html").read_text()
    write_toml(audit, whole | {"protocol": {"mode": "fedavg", "learning_rate": 0.1}})
    assert fl_sim(monkeypatch, "import", str(audit), "--out", run) == 2
    assert "start over with --fresh" in capsys.readouterr().err
    assert fl_sim(monkeypatch, "import", str(audit), "--out", run, "--fresh") == 0


def test_what_intercept_wrote_is_attacked_where_it_lies(tmp_path: Path, monkeypatch: Patch, capsys: Capture) -> None:
    sink, model = (
        record_to(tmp_path, model="tests.experiments.audit.nets:relu"),
        Record(model="tests.experiments.audit.nets:relu"),
    )
    seen = observe(model.network(), model.batch(), Protocol(mode="fedavg"))
    for client in (0, 1):
        sink(replace(seen, client=client, members=(client,)))
    assert fl_sim(monkeypatch, "attack", str(tmp_path), *ATTACK) == 0
    assert capsys.readouterr().err.count("record:") == 0
    sink(replace(seen, round=2))  # training goes on
    assert fl_sim(monkeypatch, "attack", str(tmp_path), "--executor", "inline") == 0
    assert fl_sim(monkeypatch, "evaluate", str(tmp_path)) == 0
    assert [(one["round"], one["client"]) for one in records(tmp_path)] == [(1, 0), (1, 1), (2, 0)]
    assert fl_sim(monkeypatch, "simulate", str(tmp_path)) == 2
    truth = model.batch()
    np.savez(tmp_path / "t.npz", images=truth.images.numpy(), labels=truth.labels.numpy())
    about = {"model": model.model, "updates": [{"client": 0, "truth": "t.npz"}], "evaluation": {"lpips": False}}
    write_toml(tmp_path / "audit.toml", about)
    assert fl_sim(monkeypatch, "import", str(tmp_path), "--fresh") == 0  # observations stay
    assert fl_sim(monkeypatch, "attack", str(tmp_path), *ATTACK) == 0
    assert fl_sim(monkeypatch, "evaluate", str(tmp_path)) == 0
    assert [bool(one["psnr"]) for one in records(tmp_path)] == [True, False, False]


def test_an_aggregate_is_judged_by_the_truth_of_its_members(tmp_path: Path, monkeypatch: Patch) -> None:
    net, batches = Record(options={"widths": [16]}).network(), [Record(drawn=drawn).batch() for drawn in (3, 4)]
    seen = [observe(net, batch, Protocol(mode="fedavg")) for batch in batches]
    together = mean_update({client: one.update for client, one in enumerate(seen)})
    record_to(tmp_path)(replace(seen[0], members=(0, 1), update=together))
    updates = [{"client": client, "truth": f"t{client}.npz"} for client in (0, 1)]
    for client, batch in enumerate(batches):
        np.savez(tmp_path / f"t{client}.npz", images=batch.images.numpy(), labels=batch.labels.numpy())
    write_toml(tmp_path / "audit.toml", {"model": MODEL, "updates": updates, "evaluation": {"lpips": False}})
    assert fl_sim(monkeypatch, "attack", str(tmp_path), *ATTACK) == 0
    assert fl_sim(monkeypatch, "evaluate", str(tmp_path)) == 0
    (one,) = records(tmp_path)
    assert (one["members"], len(one["psnr"])) == ([0, 1], 2)
    assert json.loads((tmp_path / "run.json").read_text())["study"]["adversary"]["view"] == "aggregate"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"modle": "mlp"}, "modle is not a key; there are: name"),
        ({"adversary": {"defense": "randomness"}}, "what a defense drew was not recorded"),
        ({"adversary": {"rounds": [1]}}, "all that is imported is attacked"),
        ({"protocol": {"mode": "fedsgd", "learning_rate": 0.1}}, 'gradients are mode = "fedsgd"'),
        ({"updates": []}, "expected [[updates]], got none"),
        ({"updates": [{"before": "before.safetensors"}]}, "expected before, examples and one of after"),
        ({"updates": [{"before": "no.npz", "after": "after0.safetensors", "examples": 1}]}, "expected no.npz in"),
        ({"model": {"name": "mlp", "widths": [17]}}, "expected net.fc1.weight to be (17, 64), got (16, 64)"),
        ({"model": "lenet"}, "expected the weights"),
        ({"defenses": ["gausian"]}, "did you mean 'gaussian'"),
    ],
)
def test_wrong_audits_end_with_2_and_say_why(
    more: dict[str, Any], message: str, tmp_path: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    audit = write_toml(tmp_path / "audit.toml", tree(tmp_path, clients=1) | more)
    assert fl_sim(monkeypatch, "import", str(audit), "--out", str(tmp_path / "run")) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_round_has_one_start(tmp_path: Path, monkeypatch: Patch, capsys: Capture) -> None:
    whole = tree(tmp_path)
    (tmp_path / "other.safetensors").write_bytes((tmp_path / "after0.safetensors").read_bytes())
    whole["updates"][1]["before"] = "other.safetensors"
    audit = write_toml(tmp_path / "audit.toml", whole)
    assert fl_sim(monkeypatch, "import", str(audit), "--out", str(tmp_path / "run")) == 2
    assert "one before for all clients of round 1" in capsys.readouterr().err.replace("\n", " ")


def test_the_run_does_not_lie_on_the_files_it_is_made_of(tmp_path: Path, monkeypatch: Patch) -> None:
    audit = write_toml(tmp_path / "audit.toml", tree(tmp_path, clients=1))
    assert fl_sim(monkeypatch, "import", str(audit), "--out", str(tmp_path)) == 2
    assert fl_sim(monkeypatch, "import", str(tmp_path / "nothing.toml")) == 2
    assert audit.exists()
