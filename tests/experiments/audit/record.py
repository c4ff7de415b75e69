"""Updates as somebody else's federation would have recorded them, and mistakes in the record."""

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_sim import models
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Task
from tests.conftest import TASK


@dataclass(frozen=True)
class Record:
    """One client that really trains by ``torch.optim``, and what AUDIT.toml says of it.

    The first fields are the truth, ``protocol``, ``task``, ... what is claimed.
    """

    model: str = "mlp"
    options: Mapping[str, Any] = None  # type: ignore[assignment]
    images: int = 1
    rate: float = 0.1
    epochs: int = 1
    batch_size: int = 64
    train: bool = False
    optimiser: type[torch.optim.Optimizer] = torch.optim.SGD
    claimed_rate: float | None = None
    claimed: Mapping[str, Any] = None  # type: ignore[assignment]
    task: Task = TASK
    claimed_task: Task | None = None
    claimed_model: Mapping[str, Any] | None = None
    examples: int | None = None
    warm: int = 0  # steps on these and other images before the round
    seed: int = 0
    drawn: int = 0  # seed of the images

    def network(self) -> nn.Module:
        network = models.build(self.model, self.task, self.seed, **(self.options or {}))
        images, labels = replace(self, images=32).batch()
        optimiser = torch.optim.SGD(network.parameters(), lr=0.2)
        for _ in range(self.warm):
            optimiser.zero_grad()
            functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return network

    def batch(self) -> Batch:
        pixels = torch.rand(self.images, self.task.image_shape[0], 4, 4, generator=derive(self.drawn, "images"))
        images = functional.interpolate(pixels, self.task.image_shape[1:], mode="bilinear").clamp(0, 1)
        low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        return Batch((images - low) / (high - low), torch.arange(self.images) % 3 + 2)

    def trained(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """State dicts before and after."""
        network = self.network().train(self.train)
        before = deepcopy(network.state_dict())
        optimiser = self.optimiser(network.parameters(), lr=self.rate)  # type: ignore[call-arg]
        batch = self.batch()
        for _ in range(self.epochs):
            for images, labels in zip(
                torch.split(batch.images, self.batch_size), torch.split(batch.labels, self.batch_size), strict=True
            ):
                optimiser.zero_grad()
                functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
        return before, network.state_dict()

    def write(self, folder: Path, before: Mapping[str, Tensor], after: Mapping[str, Tensor], **more: Any) -> Path:
        """AUDIT.toml, and the files it names."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, state in (("before", before), ("after", after)):
            safetensors.torch.save_file({k: t.contiguous() for k, t in state.items()}, folder / f"{name}.safetensors")
        task, model = self.claimed_task or self.task, {"name": self.model, **(self.options or {})}
        protocol = {
            "mode": "fedavg",
            "learning_rate": self.claimed_rate or self.rate,
            "local_epochs": self.epochs,
            "batch_size": self.batch_size,
            "batchnorm": "train" if self.train else "eval",
        }
        update = {
            "before": "before.safetensors",
            "after": "after.safetensors",
            "examples": self.examples or self.images,
        }
        tree = {
            "model": self.claimed_model or model,
            "task": {name: getattr(task, name) for name in ("image_shape", "classes", "mean", "std")},
            "protocol": protocol | dict(self.claimed or {}),
            "updates": [update],
        }
        return write_toml(folder / "audit.toml", tree | more)


def write_toml(path: Path, tree: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name} = {_toml(value)}\n" for name, value in tree.items()))
    return path


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(name)} = {_toml(v)}" for name, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)


COLOUR = replace(TASK, image_shape=(3, 16, 16), mean=(0.5, 0.4, 0.45), std=(0.25, 0.24, 0.26))
