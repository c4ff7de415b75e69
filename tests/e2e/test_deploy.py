"""A study with its parties apart, as processes on loopback: the same records, and what happens when a part dies."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from experiments.build import cells
from experiments.config import load
from experiments.deploy import shares
from experiments.deploy.compare import differences
from experiments.deploy.place import Place
from fl_sim.data.transforms import to_unit
from fl_sim.runtime.cells import CellStore, Key
from tests.e2e.parties import PATIENCE, ROOT, Parties, until
from tests.e2e.tap import Tap
from tests.experiments.runs import run_tiny

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.filterwarnings("ignore")]

STUDY = """# Is a federation of separate parties the same federation? Expected: yes, to the bit.
name = "apart"
model = {name = "mlp", widths = [16]}
defenses = [{name = "gaussian", std = 0.001}]
[federation]
clients = 2
rounds = 2
timeout = 120.0
[[attacks]]
name = "inverting_gradients"
steps = 20
[evaluation]
test_images = 50
public_images = 20
lpips = false
[runtime]
actors = 1
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "apart.toml"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same study, in this process."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("local") / "run"
    run_tiny(folder, STUDY)
    return folder


@pytest.fixture(scope="module")
def tap() -> Iterator[list[Tap]]:
    taps = list[Tap]()
    yield taps
    for one in taps:
        one.close()


@pytest.fixture(scope="module")
def open_parties(tmp_path_factory: pytest.TempPathFactory, tap: list[Tap]) -> Iterator[Parties]:
    """Without TLS; client 0 is listened to."""
    with Parties(Place(tmp_path_factory.mktemp("open")), insecure=True) as parties:
        parties.begin(2)
        tap.append(Tap(parties.port))
        parties.start_node(0, f"127.0.0.1:{tap[0].port}")
        parties.start_node(1)
        yield parties


@pytest.fixture(scope="module")
def closed_parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    """TLS, and clients that are known; client 2 is not."""
    with Parties(Place(tmp_path_factory.mktemp("closed"))) as parties:
        parties.begin(3)
        parties.place.client(2).rename(parties.place.path / "stranger")
        parties.do("register", "--address", parties.address)
        (parties.place.path / "stranger").rename(parties.place.client(2))
        for client in range(3):
            parties.start_node(client)
        yield parties


def pace() -> float:
    """Seconds that this machine takes to start a ClientApp's program, now."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import experiments.app"], cwd=ROOT, check=True)
    return time.monotonic() - began


def test_a_supernode_killed_in_a_round_does_not_end_the_run(open_parties: Parties, study: Path, local: Path) -> None:
    """What was before is as it would have been."""
    there = open_parties.place.runs / "apart"
    run = open_parties.run(study, f"federation.timeout={20 + 4 * pace():.1f}")
    until(lambda: any(there.glob("cells/*/observations/*")), run)
    open_parties.kill(open_parties.nodes.pop(1))
    assert run.wait(PATIENCE) == 0, open_parties.said("run")
    last = CellStore(there / "cells" / "base").training()[-1]
    assert last["clients"] == [0]
    assert [refused["client"] for refused in last["refused"]] == [1]
    apart = {difference.partition(":")[0] for difference in differences(there, local)}
    assert apart == {"base, round 2", *(f"record base, inverting_gradients, 2, {client}" for client in (0, 1))}


def test_no_image_crosses_the_wire(open_parties: Parties, study: Path, tap: list[Tap]) -> None:
    """Rows of pixels in every form that they have on a client; the update itself, as sent, is found."""
    cell = cells(load(study))[0]
    images = shares.own(open_parties.place.client(0), cell).held.images
    unit = to_unit(images)
    task = cell.data(None).task()
    normal = (unit - torch.tensor(task.mean).view(-1, 1, 1)) / torch.tensor(task.std).view(-1, 1, 1)
    wire = tap[0].sent + tap[0].received
    for form in (images, unit, normal):
        assert not any(image[:, 2:5].numpy().tobytes() in wire for image in form)
    seen = CellStore(open_parties.place.runs / "apart" / "cells" / "base").observation(Key(1, 0))
    sent = max(seen.update.delta.values(), key=torch.numel).numpy().tobytes()
    assert sent in tap[0].sent
    assert sent not in tap[0].received


def test_a_supernode_that_is_not_known_is_refused(closed_parties: Parties) -> None:
    assert closed_parties.nodes[2].wait(PATIENCE) != 0
    assert "2004" in closed_parties.said("supernode")


def test_a_run_whose_superlink_died_says_so_and_goes_on(closed_parties: Parties, study: Path, local: Path) -> None:
    """Of itself it does not; the same command finishes it, and nobody has to be let in anew."""
    there = closed_parties.place.runs / "apart"
    run = closed_parties.run(study)
    until(lambda: any(there.glob("cells/*/checkpoint.safetensors")), run)
    closed_parties.kill(closed_parties.superlink)
    closed_parties.start_superlink()
    assert run.wait(PATIENCE) == 1
    assert "the run ended as finished:failed" in closed_parties.said("run")
    run = closed_parties.run(study)
    assert run.wait(PATIENCE) == 0, closed_parties.said("run")
    assert differences(there, local) == []
