"""Steps on a GPU box that has PyTorch and pydantic only: trial by trial, all targets together, compiled.

    python -m benchmarks.gpu --device cuda --targets 64 > gpu.json

breaching attacks one target at a time; ``looped``, one target trial by trial in plain double backward, stands for it
where it cannot be installed.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch

from attacks import ATTACKS
from attacks.compilation import compiling
from attacks.gradients import Looped
from fl_sim import models
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Observation, Protocol, Task
from fl_sim.training.local import local_update, state_of

TASK = Task(image_shape=(3, 32, 32), classes=10, mean=(0.5,) * 3, std=(0.25,) * 3)


def observed(name: str, targets: int) -> tuple[torch.nn.Module, list[Observation]]:
    """Undefended gradients of random images; what an image shows does not change how long a step takes."""
    model = models.build(name, TASK, 0).eval()
    state, protocol = state_of(model), Protocol(batch_size=1)
    seen = []
    for client in range(targets):
        batch = Batch(torch.rand(1, *TASK.image_shape, generator=derive(client)), torch.tensor([client % 10]))
        update, _ = local_update(model, state, batch, protocol, derive(client))
        seen.append(
            Observation(
                round=1,
                client=client,
                members=(client,),
                task=TASK,
                broadcast=state.weights,
                buffers=state.buffers,
                update=update,
                protocol=protocol,
            )
        )
    return model, seen


def ways(folder: Path) -> Mapping[str, Callable[[], AbstractContextManager[object]]]:
    """How steps are taken, by name; programs are kept in ``folder``."""
    return {
        "looped": lambda: patch("attacks.problem.fastest", lambda model, state, _: Looped(model, state)),
        "together": nullcontext,
        "compiled": lambda: compiling(folder),
    }


def measure(name: str, targets: int, steps: int, device: str, repeats: int) -> dict[str, Any]:
    """Milliseconds a step of one target, medians, and how far apart the ways' results are."""
    model, seen = observed(name, targets)
    found: dict[str, list[float]] = {way: [] for way in ("looped", "together", "compiled")}
    images: dict[str, torch.Tensor] = {}

    def run(way: str, steps: int) -> float:
        own = seen[:1] if way == "looped" else seen
        began = time.perf_counter()
        guesses = ATTACKS["inverting_gradients"](steps=steps).batched(
            own, model, [derive(one.client) for one in own], device
        )
        images[way] = guesses[0].images  # on the CPU: all kernels are done
        return (time.perf_counter() - began) * 1000 / len(own)

    with tempfile.TemporaryDirectory() as folder:
        for turn in range(repeats + 1):
            for way, inside in ways(Path(folder)).items():
                with inside():
                    short, long = run(way, steps), run(way, 3 * steps)
                if turn:  # the first one warms up
                    found[way].append((long - short) / (2 * steps))
    apart = max((images[way] - images["looped"]).abs().max().item() for way in ("together", "compiled"))
    return {"model": name, "targets": targets, "ms": {w: median(v) for w, v in found.items()}, "apart": apart}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--targets", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=["cnn", "lenet", "resnet18", "convnet"])
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = torch.cuda.get_device_name() if options.device.startswith("cuda") else options.device
    for name in options.models:
        row = measure(name, options.targets, options.steps, options.device, options.repeats)
        print(json.dumps({**row, "device": device, "torch": torch.__version__}), flush=True)


if __name__ == "__main__":
    main()
