"""The script for a GPU box runs, here on the processor."""

import subprocess
import sys

import pytest

from attacks.compilation import pays
from benchmarks.gpu import measure
from fl_sim.core.types import Task
from fl_sim.models import build

_BARE = """
import sys
for name in "breaching flwr ray torchvision datasets numpy scipy cmaes safetensors torchmetrics".split():
    sys.modules[name] = None  # an import of it fails
from benchmarks.gpu import measure
print(measure("lenet", targets=2, steps=1, device="cpu", repeats=1)["model"])
"""


@pytest.mark.filterwarnings("ignore::Warning")  # breaching's imports give several, and not where it is missing
def test_all_ways_are_timed_and_agree() -> None:
    row = measure("lenet", targets=2, steps=2, device="cpu", repeats=1)
    lenet = build("lenet", Task(image_shape=(3, 32, 32), classes=10, mean=(0.5,) * 3, std=(0.25,) * 3), 0)
    compiled = {"compiled"} if pays(10**9, 10**9, lenet) else set()
    assert set(row["ms"]) - {"breaching"} == {"looped", "together"} | compiled
    assert row["mib"] == {}
    assert row["apart"] < 1e-3


def test_a_box_with_pytorch_and_pydantic_alone_runs_it() -> None:
    done = subprocess.run([sys.executable, "-c", _BARE], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "lenet", done.stderr
