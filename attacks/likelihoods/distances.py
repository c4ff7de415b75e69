"""Distances that stand in for a density, where the adversary does not know the defense."""

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from attacks.gradients import Tree, dense, products
from attacks.likelihoods.base import Likelihood, Misfit
from attacks.problem import Problem
from fl_sim.core.errors import ConfigError, suggestion
from fl_sim.core.part import part
from fl_sim.core.types import Tensors

Support: TypeAlias = Literal["all", "observed"]
"""Which entries count: all, or those that came as other than zero.

The latter is for defenses that send part of a gradient, pruning and Soteria: what they left out is no evidence. In a
whole gradient a zero is some (a unit that was off), and is thrown away.
"""

_FLOOR = 0.1  # of 1 - cos^2: where the gradient leaves much open, the prior must not fade altogether
_TINY = 1e-30  # far below the squared gradient of an image that the model is sure of


@part
class Layers:
    """How much each layer counts; its weight and its bias count alike.

    Args:
        weights: ``equal``, or ``exponential``: ``e^-l``, the first layer ``l = 0`` (arXiv 2111.04706's option).
        dropped: Parameters that do not count at all: those a defense has spoilt (Soteria's layer, say).
    """

    weights: Literal["equal", "exponential"] = "equal"
    dropped: tuple[str, ...] = ()

    def of(self, names: Iterable[str]) -> Mapping[str, float]:
        """The factor of each parameter, given in the model's order; those of factor 0 are left out."""
        kept = list(names)
        if unknown := sorted(set(self.dropped) - set(kept)):
            raise ConfigError(f"layers.dropped: no parameter {unknown[0]!r}{suggestion(unknown[0], kept)}")
        order = list(dict.fromkeys(name.rpartition(".")[0] for name in kept))
        rate = 1.0 if self.weights == "exponential" else 0.0
        factors = {name: float(torch.tensor(-rate * order.index(name.rpartition(".")[0])).exp()) for name in kept}
        return {name: factor for name, factor in factors.items() if name not in self.dropped}


@part
class L2(Likelihood):
    """Sum of squared differences: Gaussian noise of variance 1/2. DLG's (arXiv 1906.08935).

    Args:
        layers: How much each counts.
        relative: In units of the observed gradient's own weighted squares, so that 0.01 is one hundredth of it, however
            small the gradient of an image that the model is sure of.
    """

    needs_scale: ClassVar[bool] = True
    joins: ClassVar[bool] = True

    layers: Layers = Layers()
    relative: bool = False

    def bind(self, problem: Problem) -> Misfit:
        weights, targets = self.layers.of(problem.targets), problem.targets
        misfit = _differences(targets, weights, Tensor.square)
        if not self.relative:
            return misfit
        unit = _squares(targets, list(weights), weights).clamp_min(_TINY)
        return Misfit(lambda gradients: misfit.cost(gradients) / unit)


@part
class L1(Likelihood):
    """Sum of absolute differences: Laplace noise of scale 1."""

    needs_scale: ClassVar[bool] = True
    joins: ClassVar[bool] = True

    layers: Layers = Layers()

    def bind(self, problem: Problem) -> Misfit:
        return _differences(problem.targets, self.layers.of(problem.targets), Tensor.abs)


@part
class Cosine(Likelihood):
    """Blind to scale; 0 when the gradients point the same way.

    Args:
        form: ``plain``: ``1 - cos``, inverting gradients' own (arXiv 2003.14053). ``profile``:
            ``log(1 - cos |cos| + floor) / 2``, per parameter the log-likelihood under Gaussian noise of unknown level
            and a gradient of unknown scale, both fitted: a prior counts for less the better the match, and keeps its
            place where little of the observed gradient is signal.
        per: One angle over all parameters together (``model``), or the weighted mean of one a tensor (``tensor``).
        layers: Weigh the inner product and both norms; the code of arXiv 2111.04706 weighs the inner product only.
        support: Which entries of the guess count. GIFD's mask against Soteria (arXiv 2308.04699), here of every layer,
            so that it serves against pruning too: there GIFD prunes the guess by the guess's own sizes.
    """

    joins: ClassVar[bool] = True

    form: Literal["plain", "profile"] = "plain"
    per: Literal["model", "tensor"] = "model"
    layers: Layers = Layers()
    support: Support = "all"

    def bind(self, problem: Problem) -> Misfit:
        weights = self.layers.of(problem.targets)
        masks = _masks(problem.targets, weights, self.support)
        target = {name: problem.targets[name] for name in weights}
        groups = [list(weights)] if self.per == "model" else [[name] for name in weights]
        norms = [_squares(target, group, weights).sqrt() for group in groups]
        shares = torch.tensor([weights[group[0]] for group in groups]).to(norms[0])

        def cost(gradients: Tree) -> Tensor:
            seen = _masked(gradients, masks)
            angles = [self._angle(seen, target, g, weights, norm) for g, norm in zip(groups, norms, strict=True)]
            return (shares / shares.sum()) @ torch.stack(angles)

        return Misfit(cost, of="products")

    def _angle(self, seen: Tree, target: Tensors, group: list[str], by: Mapping[str, float], norm: Tensor) -> Tensor:
        pairs = [products(seen[name], target[name]) for name in group]
        dot = torch.stack([by[name] * inner for name, (inner, _) in zip(group, pairs, strict=True)]).sum(0)
        squares = torch.stack([by[name] * square for name, (_, square) in zip(group, pairs, strict=True)]).sum(0)
        length = squares.clamp_min(_TINY).sqrt()
        cosine = dot / (length * norm).clamp_min(_TINY)
        return 1 - cosine if self.form == "plain" else (1 - cosine * cosine.abs() + _FLOOR).log() / 2


@part
class Nothing(Likelihood):
    """Says nothing of any guess: what an attack makes of its prior alone, and a control."""

    joins: ClassVar[bool] = True

    def bind(self, problem: Problem) -> Misfit:
        like = next(iter(problem.targets.values()))
        return Misfit(lambda _: like.new_zeros(1), of="nothing")


def _differences(target: Tensors, weights: Mapping[str, float], size: Callable[[Tensor], Tensor]) -> Misfit:
    def cost(gradients: Tensors) -> Tensor:
        return torch.stack([w * _sum(size(gradients[k] - target[k])) for k, w in weights.items()]).sum(0)

    return Misfit(cost)


def _masks(target: Tensors, names: Iterable[str], support: Support) -> Tensors:
    """0 and 1, like the targets that have a zero among them; none of the others, where everything counts."""
    if support == "all":
        return {}
    return {name: (target[name] != 0).to(target[name]) for name in names if not target[name].all()}


def _masked(tree: Tree, masks: Tensors) -> Tree:
    """What is masked is written out."""
    return {**tree, **{name: g * masks[name] for name, g in dense({k: tree[k] for k in masks}).items()}}


def _sum(trials: Tensor) -> Tensor:
    """Of each trial's entries, ``(T,)``."""
    return trials.reshape(len(trials), -1).sum(1)


def _squares(tree: Tensors, names: list[str], weights: Mapping[str, float]) -> Tensor:
    return torch.stack([weights[name] * _sum(tree[name].square()) for name in names]).sum(0)
