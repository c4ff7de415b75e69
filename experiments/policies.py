"""``fl-sim search-policy``: random ATS policies, scored as the paper's search does, on public images.

Public means the data set's test split, as for :mod:`experiments.priors`.
"""

import json as json_
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from defenses.ats import Ats
from defenses.policy_scores import accuracy_score, privacy_score, random_policies
from experiments import terminal
from experiments.commands.shell import err, out
from experiments.progress import bar
from fl_sim import models
from fl_sim.core.errors import ConfigError
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Protocol, Task, Tensors
from fl_sim.data import Dataset, Source, load
from fl_sim.data.transforms import to_unit
from fl_sim.runtime import files
from fl_sim.training.local import (
    State,
    evaluate,
    example_gradients,
    local_update,
    logits_of,
    single_threaded,
    state_of,
)

_CONTROLS = ("", "21-13-3", "7-4-15")  # no policy, and the two of the paper
_SHOWN = 10


@dataclass(frozen=True)
class Order:
    """What is to be searched.

    Args:
        source: The data set, as a study names it.
        candidates: Random policies to score, beside none and the paper's two.
        longest: Most entries in a policy.
        images: On which the privacy score is the mean; four times as many give the accuracy score.
        train: Images that the network of the privacy score is trained on, for ``epochs``.
        slack: How far below the accuracy score without a policy a recommended one may be. The released search asks for
            a sum of at least -85 on 100 images, whatever its network reaches without a policy.
    """

    source: Source
    model: str
    candidates: int
    longest: int
    images: int
    train: int
    epochs: int
    slack: float
    seed: int
    out: Path


@dataclass(frozen=True)
class Scored:
    """A policy and its scores; see :mod:`defenses.policy_scores`."""

    policy: str
    privacy: float
    accuracy: float | None  # None: minus infinity

    def below(self, least: float) -> bool:
        return self.accuracy is None or self.accuracy < least


def command(order: Order, *, json: bool) -> None:
    """``fl-sim search-policy``: score, write all scores, print the best."""
    if order.out.suffix != ".json" or order.out.is_dir():
        raise ConfigError(f"--out: expected the name of a file that ends in .json, got {order.out}")
    order.out.parent.mkdir(parents=True, exist_ok=True)
    bench = Bench.of(order)
    policies = list(dict.fromkeys([*_CONTROLS, *_random(order)]))
    with bar(err, len(policies)) as tick, single_threaded():
        rows = list[Scored]()
        for policy in policies:
            rows.append(bench.score(policy))
            tick(f"{policy or 'none'}: privacy {rows[-1].privacy:.3f}")
    least = (rows[0].accuracy or 0.0) - order.slack
    rows = ranked(rows, least)
    about = {**_about(order), "network_accuracy": bench.reached, "least_accuracy_score": least}
    found = {**about, "policies": [asdict(row) for row in rows]}
    files.write_json(order.out, found)
    if json:
        print(json_.dumps(found, indent=1))
    else:
        _print(order, bench, rows, least)


def ranked(rows: Sequence[Scored], least: float) -> list[Scored]:
    """Most private first; behind them those whose accuracy score is below ``least``."""
    return sorted(rows, key=lambda row: (row.below(least), row.privacy))


@dataclass(frozen=True, eq=False)
class Bench:
    """What every policy is scored on: the same images, noise and networks.

    Args:
        fresh, trained: Of the accuracy and of the privacy score.
        reached: Accuracy of the trained network on the images of the accuracy score, in [0, 1].
    """

    net: nn.Module
    fresh: State
    trained: State
    images: Batch
    noise: Tensor
    many: Batch
    reached: float
    seed: int

    @classmethod
    def of(cls, order: Order) -> "Bench":
        data = load(order.source)
        task = Task(image_shape=data.image_shape, classes=data.classes, mean=data.mean, std=data.std)
        few, many, small = _public(data, order)
        net = models.build(order.model, task, order.seed)
        fresh = state_of(net)
        protocol = Protocol(mode="fedavg", local_epochs=order.epochs, batch_size=32, learning_rate=0.05, momentum=0.9)
        with single_threaded():
            update, _ = local_update(net, fresh, small, protocol, derive(order.seed, "policy", "order"))
        trained = State({name: w + update.delta[name] for name, w in fresh.weights.items()}, fresh.buffers)
        noise = torch.rand(few.images.shape, generator=derive(order.seed, "policy", "noise"))
        reached = evaluate(net, trained, many)[1]
        return cls(net.eval(), fresh, trained, few, noise, many, reached, order.seed)

    def score(self, policy: str) -> Scored:
        batches = (self.images, self.many)
        few, many = (Ats(policy=policy).transform(b, derive(self.seed, "policy", policy)) for b in batches)
        areas = [
            privacy_score(self._gradients(label), image, noise)
            for image, label, noise in zip(few.images, few.labels, self.noise, strict=True)
        ]
        accuracy = accuracy_score(self._jacobian(many.images))
        return Scored(policy, sum(areas) / len(areas), accuracy if isfinite(accuracy) else None)

    def _gradients(self, label: Tensor) -> Callable[[Tensor], Tensors]:
        def gradients(images: Tensor) -> Tensors:
            return example_gradients(self.net, self.trained, Batch(images, label.expand(len(images))))

        return gradients

    def _jacobian(self, images: Tensor) -> Tensor:
        images = images.detach().requires_grad_()
        logits, _ = logits_of(self.net, self.fresh, images)
        return torch.autograd.grad(logits.sum(), images)[0].flatten(1)


def _public(data: Dataset, order: Order) -> tuple[Batch, Batch, Batch]:
    """Test images for the privacy score, the accuracy score and the training, all different."""
    sizes = [order.images, 4 * order.images, order.train]
    if sum(sizes) > len(data.test.labels):
        raise ConfigError(
            f"expected at most {len(data.test.labels)} test images of {order.source.name}, got {sum(sizes)}: lower "
            "--images (five times as many are used) or --train"
        )
    drawn = torch.randperm(len(data.test.labels), generator=derive(order.seed, "policy", "images"))[: sum(sizes)]
    few, many, small = (
        Batch(to_unit(data.test.images[part]), data.test.labels[part]) for part in torch.split(drawn, sizes)
    )
    return few, many, small


def _random(order: Order) -> list[str]:
    return random_policies(order.candidates, order.longest, derive(order.seed, "policy", "candidates"))


def _about(order: Order) -> dict[str, Any]:
    options = {name: value for name, value in asdict(order).items() if name not in {"source", "out"}}
    return {"data": order.source.name, **options}


def _print(order: Order, bench: Bench, rows: Sequence[Scored], least: float) -> None:
    shown = [*rows[:_SHOWN], *(row for row in rows[_SHOWN:] if row.policy in _CONTROLS)]
    out.print(terminal.listing("policies, most private first", [_texts(row, least) for row in shown]))
    out.print(
        f"privacy: area under the cosine, lower is more private. accuracy: at most -1, at least {least:.3g} asked "
        f"for. The network of the privacy score is right on {bench.reached:.1%} of other images.\n{order.out}: all "
        f"{len(rows)} policies",
        soft_wrap=True,
    )


def _texts(row: Scored, least: float) -> dict[str, str]:
    accuracy = "-inf" if row.accuracy is None else f"{row.accuracy:.3g}"
    return {
        "policy": row.policy or "none",
        "privacy": f"{row.privacy:.3f}",
        "accuracy": f"{accuracy} (too low)" if row.below(least) else accuracy,
    }
