"""One figure a mistake: a function of the evidence; ``None`` where the evidence does not have it."""

from collections.abc import Iterator
from itertools import pairwise
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from experiments.audit.evidence import Account, Evidence

_ROUNDING = 1e-2  # of weights subtracted at small learning rates, with room
_EXACT, _ROUGH = (0.95, 1.05), (0.7, 1.3)  # factors that pass: of one step on one image; of an estimate
_FALLING = 0.3  # where the loss falls over several steps, so do gradients: the factor that passes then
_SAME = 0.99  # cosine of two gradients that are one
_PIXEL = 0.02  # how far beyond 0 and 1 rounding may carry a pixel


class Figure(NamedTuple):
    """The value, whether it shows the mistake, and a sentence with it."""

    value: float
    wrong: bool
    says: str


def buffers(of: Evidence) -> Figure | None:
    names = [name for name, module in of.model.named_modules() if _has_statistics(module)]
    if not names:
        return None
    count = len(of.absent)
    return Figure(count, count > 0, f"{count} of {2 * len(names)} batch-norm statistics are missing")


def batchnorm(of: Evidence) -> Figure | None:
    mode = of.seen.protocol.batchnorm if of.seen.protocol else "eval"
    if of.seen.buffers and of.seen.update.buffers and not of.absent:
        change = max(_change(of.seen.buffers[name], t) for name, t in of.seen.update.buffers.items())
        trained = change > 1e-6
        says = f"statistics changed by {change:.2g} of their norm at most"
    elif of.steps == 1 and (aligned := list(_aligned(of))):
        change = max(aligned)
        trained = change < 1e-4
        says = f"weights before batch norm have a cosine of up to {change:.2g} with their gradients"
    else:
        return None
    actual = "train" if trained else "eval"
    return Figure(change, actual != mode, f'{says}, as in {actual} mode; the protocol says "{mode}"')


def steps(of: Evidence) -> Figure | None:
    if of.counted is None or of.counted <= 0 or of.seen.protocol is None:
        return None
    ratio = of.counted / of.steps
    return Figure(ratio, ratio != 1, f"{of.counted} batches were counted, the protocol makes {of.steps}")


def loss(of: Evidence) -> Figure | None:
    if of.head is None:
        return None
    bias = of.head[2]
    value = float(bias.sum().abs() / bias.abs().sum())
    return Figure(value, value > _ROUNDING, f"the last biases' gradient sums to {value:.2g} of its absolute sum")


def optimiser(of: Evidence) -> Figure | None:
    moved = torch.cat([t.abs().flatten() for t in of.gradient.values()])
    moved = moved[moved > 0]
    if of.steps > 1 or len(moved) < 100:
        return None
    share = float(((moved / moved.median() - 1).abs() < 0.01).double().mean())
    return Figure(share, share > 0.3, f"{share:.0%} of the entries that moved did so equally far")


def sign(of: Evidence) -> Figure | None:
    account = _consistent(of)
    if account is None:
        return None
    said = "opposite to" if account.factor < 0 else "along"
    return Figure(account.factor, account.factor < 0, f"factor {account.factor:.3g}: the update points {said} its loss")


def learning_rate(of: Evidence) -> Figure | None:
    account = _consistent(of)
    if account is None or of.seen.protocol is None:
        return None
    factor = abs(account.factor)
    low, high = _EXACT if account.exact else _ROUGH if of.steps == 1 else (_FALLING, _ROUGH[1])
    rate = of.seen.protocol.learning_rate
    says = f"factor {factor:.3g}: as with a learning rate of {rate * factor:.3g}, the protocol says {rate:g}"
    if of.seen.update.kind == "gradient":
        says = f"factor {factor:.3g}: the gradient is so many times that of the batch's mean loss"
    return Figure(factor, not low < factor < high, says)


def broadcast(of: Evidence) -> Figure | None:
    if of.account is None or not of.account.exact:
        return None
    cosine = of.account.cosine
    return Figure(1 - cosine, cosine < _SAME, f"cosine {cosine:.3f} with what the weights in before make of it")


def names(of: Evidence) -> Figure | None:
    most = of.images * of.steps
    shares = {name: _outside(weight, bias, most) for name, _, weight, bias in of.biased() if most < min(weight.shape)}
    if not shares:
        return None
    worst = max(shares, key=lambda name: shares[name])
    says = f"{shares[worst]:.2g} of the bias gradient of {worst} is not of its weights' gradient"
    return Figure(shares[worst], shares[worst] > 0.1, says)


def examples(of: Evidence) -> Figure | None:
    if of.head is None or of.images * of.steps >= min(of.head[1].shape) - 1:
        return None
    values = torch.linalg.svdvals(of.head[1]).square()
    share = float(values[of.images * of.steps :].sum() / values.sum())
    return Figure(share, share > 1e-3, f"{share:.2g} of the last gradient is beyond {of.images * of.steps} images")


def model(of: Evidence) -> Figure | None:
    if of.features is None or not of.single or not bool((of.noise[0] >= 0).all()):
        return None
    lowest = float((of.features / of.features.abs().max()).min())
    return Figure(lowest, lowest < -_ROUNDING, f"the lowest feature is {lowest:.2g} of the largest")


def normalisation(of: Evidence) -> Figure | None:
    """Of one image, and of a network that begins with a linear layer; behind convolutions nothing shows it."""
    first = next(
        (layer for layer in of.model.modules() if next(layer.parameters(recurse=False), None) is not None), None
    )
    task = of.seen.task
    found = next(((w, b) for _, layer, w, b in of.biased() if layer is first), None)
    if found is None or not of.single or found[0].shape[1] != prod(task.image_shape):
        return None
    mean, std = (torch.tensor(figure, dtype=torch.float64).view(-1, 1, 1) for figure in (task.mean, task.std))
    pixels = (found[0].T @ found[1] / found[1].square().sum()).view(task.image_shape) * std + mean
    low, high = float(pixels.min()), float(pixels.max())
    beyond = max(-low, high - 1)
    squeezed = _squeezed(pixels, mean, std)
    says = f"pixels span {low:.2f} to {high:.2f}" + (", mean to mean + std: not normalised" if squeezed else "")
    return Figure(max(beyond, 0.0), beyond > _PIXEL or squeezed, says)


def frozen(of: Evidence) -> Figure | None:
    blind = {f"{name}.bias" for name, _ in _before_norm(of.model)}  # batch norm subtracts them again
    still = [name for name, t in of.gradient.items() if not bool(t.any()) and name not in blind]
    share = len(still) / len(of.gradient)
    return Figure(share, bool(still), f"{len(still)} of {len(of.gradient)} tensors did not move{_some(still)}")


def _some(names_: list[str]) -> str:
    return f": {', '.join(names_[:3])}{', ...' if len(names_) > 3 else ''}" if names_ else ""


def _consistent(of: Evidence) -> Account | None:
    """The account, where its shape is right and only its scale is in question."""
    account = of.account
    return account if account is not None and account.cosine > (_SAME if account.exact else 0.9) else None


def _squeezed(pixels: Tensor, mean: Tensor, std: Tensor) -> bool:
    """Whether undoing the normalisation leaves ``x std + mean`` of an image x in [0, 1], dark and light in it."""
    raw = (pixels - mean) / std
    identity = bool((mean == 0).all() and (std == 1).all())
    within = bool(raw.min() > -_PIXEL and raw.max() < 1 + _PIXEL)
    return not identity and within and float(raw.min()) < 0.1 and float(raw.max()) > 0.5


def _outside(weight: Tensor, bias: Tensor, most: int) -> float:
    """Share of ``bias`` ``(out,)`` outside the ``most`` strongest columns' directions of ``weight`` ``(out, in)``."""
    directions = torch.linalg.svd(weight, full_matrices=False).U[:, :most]
    rest = bias - directions @ (directions.T @ bias)
    return float(rest.norm() / bias.norm())


def _change(before: Tensor, after: Tensor) -> float:
    return float((after - before).norm() / before.norm().clamp_min(1.0))


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.track_running_stats


def _aligned(of: Evidence) -> Iterator[float]:
    """Cosines of each convolution's weights with their gradient, where batch norm follows: the norm is blind to their
    length, so in train mode they are orthogonal."""
    for name, _ in _before_norm(of.model):
        weight, gradient = of.seen.broadcast[f"{name}.weight"].double(), of.gradient[f"{name}.weight"]
        norms = weight.norm() * gradient.norm()
        if norms > 0:
            yield float((weight * gradient).sum().abs() / norms)


def _before_norm(model_: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Convolutions that batch norm follows, as they stand in the model."""
    leaves = [(name, m) for name, m in model_.named_modules() if not list(m.children())]
    for (name, layer), (_, following) in pairwise(leaves):
        if isinstance(layer, nn.Conv2d) and isinstance(following, _BatchNorm):
            yield name, layer
