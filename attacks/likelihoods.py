"""How well a guess's gradient explains what was observed: the first term of every attack.

Each is a cost per trial, lower is better: ``-log p(observed | guess)`` up to constants, or a distance that stands in
for it (arXiv 2111.04706, table 1).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

from attacks.problem import Problem
from fl_sim.core.contracts import Defense
from fl_sim.core.errors import NoDensityError
from fl_sim.core.knowledge import Knowledge
from fl_sim.core.part import part
from fl_sim.core.types import Tensors

_FLOOR = 0.1  # of 1 - cos^2: where the gradient leaves much open, the prior must not fade altogether
_TINY = 1e-30  # far below the squared gradient of an image that the model is sure of


class Likelihood(ABC):
    """Cost ``(T,)`` of guessed gradients, each tensor ``(T, *shape)``, in the light of a problem."""

    needs_scale: ClassVar[bool]
    """Whether it is meaningless when only the direction of the gradient is known."""

    @abstractmethod
    def __call__(self, gradients: Tensors, problem: Problem) -> Tensor: ...


@part
class L2(Likelihood):
    """Sum of squared differences: Gaussian noise of variance 1/2. DLG's (arXiv 1906.08935)."""

    needs_scale: ClassVar[bool] = True

    def __call__(self, gradients: Tensors, problem: Problem) -> Tensor:
        return _total([(g - problem.target[k]).square() for k, g in gradients.items()])


@part
class L1(Likelihood):
    """Sum of absolute differences: Laplace noise of scale 1."""

    needs_scale: ClassVar[bool] = True

    def __call__(self, gradients: Tensors, problem: Problem) -> Tensor:
        return _total([(g - problem.target[k]).abs() for k, g in gradients.items()])


@part
class Cosine(Likelihood):
    """One angle over all parameters, blind to scale; 0 when the gradients point the same way.

    Args:
        form: ``plain``: ``1 - cos``, inverting gradients' own (arXiv 2003.14053). ``profile``:
            ``log(1 - cos |cos| + floor) / 2``, per parameter the log-likelihood under Gaussian noise of unknown level
            and a gradient of unknown scale, both fitted: a prior counts for less the better the match, and keeps its
            place where little of the observed gradient is signal.
        over: All parameters, or those with an observed entry other than zero (``kept``).
    """

    needs_scale: ClassVar[bool] = False

    form: Literal["plain", "profile"] = "plain"
    over: Literal["all", "kept"] = "all"

    def __call__(self, gradients: Tensors, problem: Problem) -> Tensor:
        target = problem.target
        seen = gradients if self.over == "all" else {k: g * (target[k] != 0) for k, g in gradients.items()}
        dot = _total([g * target[k] for k, g in seen.items()])
        norm = _total([g.square() for g in seen.values()]).clamp_min(_TINY).sqrt()
        cosine = dot / (norm * _norm(target)).clamp_min(_TINY)
        return 1 - cosine if self.form == "plain" else (1 - cosine * cosine.abs() + _FLOOR).log() / 2


@part
class KeptL2(Likelihood):
    """Squared differences where the observed entry is not zero: what magnitude pruning leaves to match."""

    needs_scale: ClassVar[bool] = True

    def __call__(self, gradients: Tensors, problem: Problem) -> Tensor:
        return _total([((g - t) * (t != 0)).square() for g, t in _pairs(gradients, problem.target)])


SURROGATES: Mapping[str, Likelihood] = MappingProxyType({"l2": L2(), "l1": L1(), "kept": KeptL2(), "cosine": Cosine()})
"""By the names that ``NoDensityError.surrogate`` uses."""


@part
class DefenseDensity(Likelihood):
    """``-log p(observed | clean)`` of the defense itself, in nats: the Bayes adversary's (arXiv 2111.04706).

    Args:
        std: Where the defense has no density, its surrogate squared distance is read as Gaussian noise of this std, in
            the gradient's units.

    Known to be undefended, or a stack of several (whose joint density is not at hand): the surrogate is L2.
    """

    needs_scale: ClassVar[bool] = True

    std: PositiveFloat = 0.01

    def __call__(self, gradients: Tensors, problem: Problem) -> Tensor:
        defenses = problem.seen.knowledge.defenses or ()
        if len(defenses) != 1:
            return self._surrogate("l2", gradients, problem)
        try:
            return -self._log_likelihood(defenses[0], problem.as_update(gradients), problem)
        except NoDensityError as error:
            return self._surrogate(error.surrogate, gradients, problem)

    def _surrogate(self, name: str, gradients: Tensors, problem: Problem) -> Tensor:
        return SURROGATES[name](gradients, problem) / (2 * self.std**2)

    @staticmethod
    def _log_likelihood(defense: Defense, clean: Tensors, problem: Problem) -> Tensor:
        observed, known = problem.seen.update.delta, problem.seen.knowledge
        trials = range(len(next(iter(clean.values()))))
        return torch.stack(
            [defense.log_likelihood(observed, {k: c[i] for k, c in clean.items()}, known) for i in trials]
        )


def tells(defenses: Sequence[Defense]) -> bool:
    """Whether knowing these defenses gives :class:`DefenseDensity` more than plain squared differences."""
    if len(defenses) != 1:
        return False
    probe = {"x": torch.zeros(2)}
    try:
        defenses[0].log_likelihood(probe, probe, Knowledge())
    except NoDensityError as error:
        return error.surrogate != "l2"
    return True


def _total(parts: list[Tensor]) -> Tensor:
    """Sum of each trial's entries, ``(T,)``."""
    return torch.stack([p.flatten(1).sum(1) for p in parts]).sum(0)


def _norm(tree: Tensors) -> Tensor:
    return torch.stack([t.square().sum() for t in tree.values()]).sum().sqrt()


def _pairs(gradients: Tensors, target: Tensors) -> list[tuple[Tensor, Tensor]]:
    return [(g, target[k]) for k, g in gradients.items()]
