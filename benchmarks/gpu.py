"""Steps on a GPU box that has PyTorch and pydantic only: trial by trial, all targets together, compiled.

    python -m benchmarks.gpu --device cuda --targets 64 > gpu.json

Each with breaching's objective. breaching attacks one target at a time, where it is installed; where it is not,
``looped``, one target trial by trial in plain double backward, stands for it. TF32 is off for all.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch

from attacks import ATTACKS
from attacks.compilation import compiling, pays
from attacks.gradients import Looped
from benchmarks import tools
from benchmarks.plan import SAME
from fl_sim import models
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Observation, Protocol, Task
from fl_sim.training.local import local_update, state_of

TASK = Task(image_shape=(3, 32, 32), classes=10, mean=(0.5,) * 3, std=(0.25,) * 3)


def observed(name: str, targets: int, task: Task = TASK) -> tuple[torch.nn.Module, list[Observation]]:
    """Undefended gradients of random images; what an image shows does not change how long a step takes."""
    model = models.build(name, task, 0).eval()
    state, protocol = state_of(model), Protocol(batch_size=1)
    seen = []
    for client in range(targets):
        batch = Batch(torch.rand(1, *task.image_shape, generator=derive(client)), torch.tensor([client % 10]))
        update, _ = local_update(model, state, batch, protocol, derive(client))
        seen.append(
            Observation(
                round=1,
                client=client,
                members=(client,),
                task=task,
                broadcast=state.weights,
                buffers=state.buffers,
                update=update,
                protocol=protocol,
            )
        )
    return model, seen


def ways(model: torch.nn.Module, folder: Path) -> Mapping[str, Callable[[], AbstractContextManager[object]]]:
    """How steps are taken, by name; compiled only where a study would, and the programs are kept in ``folder``."""
    found: dict[str, Callable[[], AbstractContextManager[object]]] = {"breaching": nullcontext}
    if find_spec("breaching") is None:
        found.clear()
    found["looped"] = lambda: patch("attacks.problem.fastest", lambda model, state, _: Looped(model, state))
    found["together"] = nullcontext
    if pays(10**9, 10**9, model):
        found["compiled"] = lambda: compiling(folder)
    return found


def measure(name: str, targets: int, steps: int, device: str, repeats: int) -> dict[str, Any]:
    """Of each way: how many times as fast as the first, and milliseconds a step of one target (median, least, most).

    On a GPU also the most MiB. ``apart``: the largest difference of one of our pictures from the one trial by trial.
    """
    model, seen = observed(name, targets)
    images: dict[str, torch.Tensor] = {}
    found: dict[str, list[float]] = {}
    peaks: dict[str, int] = {}

    def run(way: str, steps: int) -> float:
        own = seen if way in {"together", "compiled"} else seen[:1]
        began = time.perf_counter()
        images[way] = _pictures(way, own, model, steps, device)  # on the CPU: all kernels are done
        return (time.perf_counter() - began) * 1000 / len(own)

    with tempfile.TemporaryDirectory() as folder:
        for turn in range(repeats + 1):
            for way, inside in ways(model, Path(folder)).items():
                with inside(), _peak(device, way, peaks):
                    short, long = run(way, steps), run(way, 3 * steps)
                if turn:  # the first one warms up
                    found.setdefault(way, []).append((long - short) / (2 * steps))
    ours = images.keys() & {"together", "compiled"}
    apart = max((images[way] - images["looped"]).abs().max().item() for way in ours)
    return {"model": name, "targets": targets, **_ratios(found), "mib": peaks, "apart": apart}


def _ratios(found: Mapping[str, list[float]]) -> dict[str, dict[str, Any]]:
    first = median(next(iter(found.values())))
    return {
        "ratio": {way: round(first / median(ms), 2) for way, ms in found.items()},
        "ms": {way: [median(ms), min(ms), max(ms)] for way, ms in found.items()},
    }


def _pictures(way: str, seen: Sequence[Observation], model: torch.nn.Module, steps: int, device: str) -> torch.Tensor:
    if way == "breaching":
        return tools.breaching(seen[0], model, {"steps": steps}, None, seen[0].client, device).images
    attack = ATTACKS["inverting_gradients"](steps=steps, **SAME)
    return attack.batched(seen, model, [derive(one.client) for one in seen], device)[0].images


@contextmanager
def _peak(device: str, way: str, peaks: dict[str, int]) -> Iterator[None]:
    """Note the most MiB that a GPU gave meanwhile; on a CPU ``stopwatch`` has a process for each way."""
    if device == "cpu":
        yield
        return
    torch.cuda.reset_peak_memory_stats(device)
    yield
    peaks[way] = torch.cuda.max_memory_allocated(device) >> 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--targets", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=["cnn", "lenet", "resnet18", "convnet"])
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # for breaching too
    device = torch.cuda.get_device_name() if options.device.startswith("cuda") else options.device
    for name in options.models:
        row = measure(name, options.targets, options.steps, options.device, options.repeats)
        print(json.dumps({**row, "device": device, "torch": torch.__version__}), flush=True)


if __name__ == "__main__":
    main()
