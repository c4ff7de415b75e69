"""A batch that would not fit is refused before it is begun, and halved."""

import gc
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from attacks import ATTACKS, memory
from attacks.posterior import PosteriorSearch
from attacks.solvers import LBFGS
from attacks.staged import StagedSearch
from fl_sim.core.seeds import derive
from tests.attacks.test_together import net, observations


def test_searches_leave_no_tensors_behind() -> None:
    """Graphs that hold themselves through a hook are no garbage to Python: a worker grew by one a search."""
    model = net()
    seen = observations(model)

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())

    counts = list[int]()
    for _ in range(3):
        ATTACKS["inverting_gradients"](steps=2).batched(seen, model, [derive(0) for _ in seen], "cpu")
        counts.append(tensors())
    assert counts[1] == counts[2]


def test_what_a_step_keeps_is_counted_once() -> None:
    x = torch.rand(1000, requires_grad=True)
    assert memory.kept_by(x.exp) == 4000  # its result
    assert memory.kept_by(lambda: (y := x.exp()) * y) == 4000  # the same, three times
    assert memory.kept_by(lambda: x.exp().exp()) == 8000
    assert memory.kept_by(lambda: x.detach().exp()) == 0


def sizes_tried(monkeypatch: pytest.MonkeyPatch, searches: type, method: str, *, fitting: int) -> list[int]:
    """Filled with how many each call of the method is given, in a memory that holds ``fitting``."""
    tried, original = list[int](), getattr(searches, method)

    def counted(self: object, some: Sequence[object], *args: Any, **options: Any) -> Any:
        tried.append(len(some))
        return original(self, some, *args, **options)

    monkeypatch.setattr(searches, method, counted)
    each = 10**9  # beside which what a solver remembers of a few small images is nothing
    monkeypatch.setattr(memory, "kept_by", lambda _: each)
    monkeypatch.setattr(memory, "free", lambda _: 2 * each * fitting + each)
    return tried


@pytest.mark.parametrize(("fitting", "sizes"), [(3, [3]), (2, [3, 1, 2]), (0, [3, 1, 2, 1, 1])])
def test_as_many_are_searched_together_as_fit(fitting: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    model = net()
    seen, attack = observations(model), ATTACKS["inverting_gradients"](steps=4)
    expected = attack.batched(seen, model, [derive(one.client) for one in seen])
    tried = sizes_tried(monkeypatch, PosteriorSearch, "_search_all", fitting=fitting)
    found = attack.batched(seen, model, [derive(one.client) for one in seen])
    assert tried == sizes
    assert all((a.images - b.images).abs().max() < 1e-3 for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize(
    ("name", "options", "searches", "network", "sizes"),
    [
        ("gifd", {"generator": "digits", "stages": 1, "steps": 2}, StagedSearch, "mlp", [4, 2, 2] * 2),
        ("gias", {"generator": "digits", "latent_steps": 2, "steps": 2}, StagedSearch, "mlp", [4, 2, 2] * 2),
        ("inverting_gradients", {"steps": 4}, PosteriorSearch, "lenet", [4, 2, 2]),
    ],
)
def test_of_one_observations_restarts_as_many_go_together_as_fit(
    name: str, options: dict[str, Any], searches: type, network: str, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = net(network)
    seen, attack = observations(model)[0], ATTACKS[name](restarts=4, **options)
    expected = attack(seen, model, derive(0))
    tried = sizes_tried(monkeypatch, searches, "_solved", fitting=2)
    found = attack(seen, model, derive(0))
    assert tried == sizes
    assert found.loss == pytest.approx(expected.loss, rel=1e-4)
    assert (found.images - expected.images).abs().max() < 1e-3


_LIMITED = """
import resource, torch
from torch import Generator
from attacks.memory import halved
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 30) // 2, -1))
def search(some, _):
    torch.empty(len(some), 1 << 28)  # a GiB each
    return [(one, len(some)) for one in some]
print(halved(search, range(4), [Generator() for _ in range(4)]))
search(range(2), ())
"""


@pytest.mark.parametrize(
    "said",
    [
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    ],
)
def test_what_allocators_and_libraries_say_of_their_memory_is_known(said: str) -> None:
    assert memory.out_of_memory(RuntimeError(said))
    assert not memory.out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_the_real_allocator_s_refusal_is_one_down_to_a_single_search() -> None:
    """Of four that need a GiB each, where a GiB and a half is left."""
    done = subprocess.run([sys.executable, "-c", _LIMITED], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[(0, 1), (1, 1), (2, 1), (3, 1)]"
    assert "RuntimeError" in done.stderr
    assert "memory" in done.stderr


def test_what_a_solver_remembers_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    start = {"images": torch.rand(1, 1000)}
    monkeypatch.setattr(memory, "free", lambda _: 2 * 4000 * 2 * 200)
    memory.check_fits(lambda point, _: point["images"].sum(), start, 2, LBFGS(steps=97).copies, "cpu")
    with pytest.raises(torch.OutOfMemoryError, match="2 observations at 820000 bytes"):
        memory.check_fits(lambda point, _: point["images"].sum(), start, 2, LBFGS(steps=100).copies, "cpu")


@pytest.mark.parametrize(("name", "copies"), [("inverting_gradients", 5), ("dlg", 5 + 2 * 7)])
def test_searches_say_what_theirs_remembers(name: str, copies: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = list[int]()
    monkeypatch.setattr("attacks.posterior.check_fits", lambda *args: given.append(args[3]))
    model = net("lenet")
    for seen in (observations(model), observations(model)[:1]):
        ATTACKS[name](steps=7, restarts=2).batched(seen, model, [derive(0) for _ in seen], "cpu")
    assert given == [copies, copies]


def test_a_gpu_has_what_is_free_and_what_is_only_kept_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"memory_reserved": 30, "memory_allocated": 10, "mem_get_info": (100, 500)}.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, value=value: value)
    assert memory.free("cuda") == 120


def test_a_container_has_what_its_group_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    everything = memory.free("cpu")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert (memory.free("cpu") is None) == (everything is None)
    (tmp_path / "memory.max").write_text("1000\n")
    assert memory.free("cpu") == 300
