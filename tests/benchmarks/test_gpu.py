"""The script for a GPU box runs, here on the processor."""

import pytest

from benchmarks.gpu import measure


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of what breaching imports
def test_all_ways_are_timed_and_agree() -> None:
    row = measure("lenet", targets=2, steps=2, device="cpu", repeats=1)
    assert set(row["ms"]) - {"breaching"} == {"looped", "together", "compiled"}
    assert row["mib"] == {}
    assert row["apart"] < 1e-3


def test_it_imports_neither_flower_nor_ray() -> None:
    """A box with PyTorch and pydantic runs it."""
    import subprocess
    import sys

    code = "import benchmarks.gpu, sys; print(sorted({'flwr', 'ray', 'torchvision', 'datasets'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
