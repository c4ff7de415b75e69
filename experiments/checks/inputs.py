"""K11 and K12: what was done to the images, and which labels they had."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from attacks import ATTACKS
from attacks.labels import infer_labels
from attacks.likelihoods import Cosine
from defenses.ats import ENTRIES, Ats
from defenses.operations import OPERATIONS
from experiments.checks.answer import Answer, near
from experiments.checks.world import cost_at, network, random_batch, watched
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch
from fl_sim.metrics.image import psnr


def transformed_image_matches() -> Answer:
    """K11: behind ATS the gradient is that of T(x)."""
    return near(_cosine_of(_transformed()), 0.0, 1e-6, "cosine cost at T(x)")


def original_image_does_not() -> Answer:
    """K11: at x itself it is not."""
    return Answer(_cosine_of(random_batch(1)), 0.01, 2.0, "cosine cost at x, above 0")


def two_truths_differ() -> Answer:
    """K11: an exact reconstruction is one of T(x) and far from x: both have to be reported."""
    model, changed = network("mlp", widths=(32,)), _transformed()
    found = ATTACKS["ratio"]()(watched(model, changed), model, derive(0)).images
    apart = (psnr(found, changed.images) - psnr(found, random_batch(1).images)).item()
    return Answer(apart, 70.0, math.inf, "PSNR against T(x) minus PSNR against x, ratio attack")


def shifts_are_as_long_as_theirs() -> Answer:
    """K11: entries 3, 7 and 21 of the policies' table move a 32-pixel image by 14.5, 3.2 and 8.06 pixels."""
    moves = [(ENTRIES[entry], pixels) for entry, pixels in ((3, 14.5), (7, 3.2), (21, 8.06))]
    apart = [abs(32 * OPERATIONS[name].magnitude(level) - pixels) for (name, level), pixels in moves]
    return near(max(apart), 0.0, 0.03, "14.5, 3.2 and 8.06 pixels")


def no_policy_no_change() -> Answer:
    """K11: the empty policy is the identity."""
    batch = random_batch(4)
    changed = (Ats(policy="").transform(batch, derive(0, "ats")).images - batch.images).abs().max().item()
    return near(changed, 0.0, 0.0, "difference under the empty policy")


def label_is_found() -> Answer:
    """K12: one image has one negative bias gradient, that of its label."""
    model = network("mlp", widths=(32,))
    hits = [_inferred(model, batch).tolist() == batch.labels.tolist() for batch in map(_single, range(50))]
    return Answer(sum(hits) / len(hits), 1.0, 1.0, "50 of 50 images")


def row_sums_tell_the_label() -> Answer:
    """K12: behind a ReLU the last layer's weight gradient has one row with a negative sum, that of the label."""
    model, hits = network("mlp", widths=(32,)), 0
    for batch in map(_single, range(50)):
        sums = watched(model, batch).update.delta["net.head.weight"].sum(1)
        hits += int(sums.argmin() == batch.labels[0] and int((sums < 0).sum()) == 1)
    return near(hits, 50, 0, "of 50 images")


def counts_are_found() -> Answer:
    """K12: at zero weights ``N (1/C - bias gradient)`` is the label count, exactly."""
    wrong = 0
    for place in range(20):
        batch = random_batch(8, place)
        wrong += int((_inferred(network("softmax"), batch) != batch.labels.sort().values).sum())
    return near(wrong, 0, 0, "wrong labels of 20 batches of 8")


def _single(place: int) -> Batch:
    return random_batch(1, place)


def _inferred(model: torch.nn.Module, batch: Batch) -> Tensor:
    seen = watched(model, batch)
    return infer_labels(seen, model, seen.update.delta, derive(0, "labels"))


def _transformed() -> Batch:
    return Ats(policy="21-13-3").transform(random_batch(1), derive(0, "ats"))


def _cosine_of(guess: Batch) -> float:
    model = network("mlp", widths=(32,))
    return cost_at(guess, Cosine(), watched(model, _transformed()), model)


CHECKS: Mapping[str, Callable[[], Answer]] = MappingProxyType(
    {
        "K11 at T(x)": transformed_image_matches,
        "K11 at x": original_image_does_not,
        "K11 two truths": two_truths_differ,
        "K11 shifts": shifts_are_as_long_as_theirs,
        "K11 identity": no_policy_no_change,
        "K12 label": label_is_found,
        "K12 row sums": row_sums_tell_the_label,
        "K12 label counts": counts_are_found,
    }
)
