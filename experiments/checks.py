"""Known-answer checks of this installation: what ``fl-sim selftest`` runs. Numbers K... refer to the README's table."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attacks import ATTACKS
from defenses import DEFENSES
from fl_sim import models
from fl_sim.core.contracts import Defense
from fl_sim.core.knowledge import Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat, subtract
from fl_sim.core.types import Batch, Observation, Protocol, Task, Update
from fl_sim.metrics.image import psnr
from fl_sim.metrics.matching import match
from fl_sim.training.local import local_update, state_of

_TASK = Task(image_shape=(1, 8, 8), classes=10, mean=(0.3,), std=(0.35,))


class Answer(NamedTuple):
    """A measured figure and the bounds it must lie in; ``expected`` says where they come from."""

    figure: float
    low: float
    high: float
    expected: str


@dataclass(frozen=True)
class Check:
    """One check that was run."""

    name: str
    figure: float
    low: float
    high: float
    expected: str
    passed: bool
    seconds: float

    def __str__(self) -> str:
        bounds = f"[{self.low:.6g}, {self.high:.6g}]"
        return f"{self.name}: {self.figure:.6g} in {bounds} ({self.expected}), {self.seconds:.2f} s"

    def as_dict(self) -> dict[str, Any]:
        figures = {"figure": self.figure, "low": self.low, "high": self.high}
        return {**asdict(self), **{k: v if math.isfinite(v) else None for k, v in figures.items()}}


def run_checks() -> Iterator[Check]:
    """Each check as it is done; a figure that is no number fails."""
    for name, check in CHECKS.items():
        began = time.monotonic()
        answer = check()
        passed = answer.low <= answer.figure <= answer.high
        yield Check(name, *answer, passed=passed, seconds=round(time.monotonic() - began, 3))


def ratio_is_exact() -> Answer:
    """K8: without noise, weight gradient over bias gradient is the image."""
    seen, batch, model = watched("mlp", widths=(32,))
    guess = ATTACKS["ratio"]()(seen, model, derive(0))
    return Answer(psnr(guess.images, batch.images).item(), 90.0, math.inf, "exact up to float32")


def matching_finds_the_image() -> Answer:
    """A matching attack on an undefended one-image gradient comes close to the image."""
    seen, batch, model = watched("mlp", widths=(32,))
    guess = ATTACKS["inverting_gradients"](steps=400)(seen, model, derive(0))
    return Answer(psnr(guess.images, batch.images).item(), 30.0, math.inf, "undefended, 400 steps")


def label_is_found() -> Answer:
    """K12: the sign rule on 20 one-image gradients."""
    hits = 0
    for i in range(20):
        seen, batch, model = watched("mlp", place=i, widths=(32,))
        hits += ATTACKS["ratio"]()(seen, model, derive(0)).labels.tolist() == batch.labels.tolist()
    return Answer(hits / 20, 1.0, 1.0, "one negative bias gradient: the label")


def counts_are_found() -> Answer:
    """K12: label counts of a batch of 8 at zero weights are exact."""
    seen, batch, model = watched("softmax", images=8)
    found = ATTACKS["ratio"]()(seen, model, derive(0)).labels
    return Answer(float((found == batch.labels.sort().values).float().mean()), 1.0, 1.0, "N (1/C - bias gradient)")


def gaussian_is_calibrated() -> Answer:
    """K13: at the truth, E log p(g|x) = -(k/2)(ln 2 pi s^2 + 1), with standard deviation sqrt(k/2)."""
    k, std = 100_000, 0.1
    clean = {"w": torch.randn(k, generator=derive(0, "clean"))}
    defense = defended("gaussian", std=std)
    update = Update(delta=clean, num_examples=1)
    observed = defense.protect(update, derive(0, "noise")).update.delta
    found = defense.log_likelihood(observed, clean, Knowledge()).item()
    expected = -(k / 2) * (math.log(2 * math.pi * std**2) + 1)
    return Answer((found - expected) / math.sqrt(k / 2), -4.0, 4.0, "standard deviations from -(k/2)(ln 2 pi s^2 + 1)")


def matching_ignores_order() -> Answer:
    """K16: PSNR of a permuted batch, matched, is that of the batch."""
    images = torch.rand(6, 1, 8, 8, generator=derive(0, "images"))
    shuffled = images[torch.randperm(6, generator=derive(1))]
    return Answer(psnr(shuffled[match(shuffled, images)], images).min().item(), 150.0, 150.0, "the same images")


def codec_gives_back() -> Answer:
    """What top-k and 8-bit rounding send, stacked, is what the server decodes."""
    stack = [defended("topk", keep=0.1), defended("quantize")]
    update = Update(
        delta={"w": torch.randn(64, 32, generator=derive(0)), "b": torch.randn(64, generator=derive(1))}, num_examples=1
    )
    for defense in stack:
        update = defense.protect(update, derive(2)).update
    sent = update.delta
    for defense in stack:
        sent = defense.codec.encode(sent)
    for defense in reversed(stack):
        sent = defense.codec.decode(sent, update.delta)
    return Answer(flat(subtract(sent, update.delta)).abs().max().item(), 0.0, 1e-6, "decode(encode(x)) = x")


CHECKS: Mapping[str, Callable[[], Answer]] = MappingProxyType(
    {
        "ratio-exact": ratio_is_exact,
        "matching-finds-the-image": matching_finds_the_image,
        "label-sign-rule": label_is_found,
        "label-counts": counts_are_found,
        "gaussian-calibrated": gaussian_is_calibrated,
        "matching-order": matching_ignores_order,
        "codec-round-trip": codec_gives_back,
    }
)


def watched(name: str, *, images: int = 1, place: int = 0, **options: object) -> tuple[Observation, Batch, nn.Module]:
    """A client's undefended gradient on random images, as the server sees it."""
    model = models.build(name, _TASK, 0, **options)
    pixels: Tensor = torch.rand(images, *_TASK.image_shape, generator=derive(0, "pixels", place))
    batch = Batch(pixels, torch.randint(10, (images,), generator=derive(0, "labels", place)))
    state, protocol = state_of(model), Protocol(batch_size=images)
    update, _ = local_update(model, state, batch, protocol, derive(0))
    seen = Observation(
        round=1,
        client=0,
        members=(0,),
        task=_TASK,
        broadcast=state.weights,
        buffers=state.buffers,
        update=update,
        protocol=protocol,
    )
    return seen, batch, model


def defended(name: str, **options: object) -> Defense:
    defense = DEFENSES[name](**options)
    assert isinstance(defense, Defense)
    return defense
