"""One small world that the tests share: an 8x8 task, a small net, one image, and the update it yields."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from defenses.precode import Precode
from fl_sim import models
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Observation, Protocol, Task, Update
from fl_sim.training.local import State, local_update, state_of

TASK = Task(image_shape=(1, 8, 8), classes=10, mean=(0.3,), std=(0.35,))
DRAW = "net.bottleneck.code.noise.draw"
"""Of a model behind PRECODE."""


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test session has a cache of its own, shared by its tests: partitions are slow to draw."""
    monkeypatch.setenv("FL_SIM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def model() -> nn.Module:
    return models.build("mlp", TASK, 0, widths=[32])


@pytest.fixture
def batch() -> Batch:
    image = torch.rand(1, *TASK.image_shape, generator=derive(0, "image"))
    return Batch(image, torch.tensor([2]))


@pytest.fixture
def seen(model: nn.Module, batch: Batch) -> Observation:
    return observe(model, batch)


@pytest.fixture
def update(seen: Observation) -> Update:
    return seen.update


@pytest.fixture
def study_file(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a study and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "study.toml"
        path.write_text(text)
        return path

    return write


def precoded(width: int, draws: int, task: Task = TASK) -> nn.Module:
    """An mlp of one hidden layer, with a bottleneck that draws ``draws`` numbers for each image."""
    return Precode(width=draws).wrap(models.build("mlp", task, 0, widths=[width]), derive(0, "precode"))


def observe(model: nn.Module, batch: Batch, protocol: Protocol | None = None) -> Observation:
    """The undefended update of ``batch``, as the server sees it."""
    protocol = protocol or Protocol(batch_size=len(batch.labels))
    state: State = state_of(model)
    update, _ = local_update(model, state, batch, protocol, derive(0, "order"))
    return Observation(
        round=1,
        client=0,
        members=(0,),
        task=TASK,
        broadcast=state.weights,
        buffers=state.buffers,
        update=update,
        protocol=protocol,
    )
