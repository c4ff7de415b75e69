"""What a search minimises: likelihood and priors of the trials of one observation, or of several at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor, cat

from attacks.ball import DeltaBall
from attacks.compilation import Program, compiled
from attacks.gradients import Tree, of_trials
from attacks.likelihoods import Likelihood
from attacks.priors import Prior
from attacks.problem import Guess, Problem
from attacks.solvers import Cost, slope
from attacks.variables import Point, Variables
from fl_sim.core.part import part
from fl_sim.core.types import Tensors

Share: TypeAlias = Annotated[float, Field(gt=0, le=1)]


@part
class Annealing:
    """A factor on the likelihood that grows geometrically to 1, and stays there.

    Args:
        first: The factor at the start, in (0, 1].
        until: Share of the steps after which it is 1, in (0, 1].
    """

    first: Share = 1.0
    until: Share = 0.5

    def __call__(self, progress: float) -> float:
        return min(1.0, float(self.first ** max(0.0, 1 - progress / self.until)))


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What costs, and how a point is read; see :class:`attacks.posterior.PosteriorSearch`.

    Args:
        compared: By what points are compared: the whole cost, or the likelihood alone.
    """

    likelihood: Likelihood
    priors: tuple[Prior, ...]
    variables: Variables
    annealing: Annealing = field(default_factory=Annealing)
    ball: DeltaBall | None = None
    compared: Literal["cost", "likelihood"] = "cost"

    @property
    def weighs_priors(self) -> float:
        """Their factor where points are compared."""
        return 1.0 if self.compared == "cost" else 0.0


class Matching:
    """``f_t * likelihood + priors``, with one gradient for the trials of all observations together.

    Args:
        terms: Of the cost.
        problems: Of observations that share the network and its weights.
        trials: Of each observation; they follow one another.
        offsets: Of each observation's ball, if the terms have one.
        whole: Whether it may be compiled where that is enabled: not for what is left of a search.

    Of problems with earlier rounds it is the sum of all rounds' likelihoods: independent noise on the same images.

    What compares a trial with its own observation only (a likelihood, a prior that ``joins``) is computed for all at
    once, anything else for one observation after the other.
    """

    def __init__(
        self,
        terms: Terms,
        problems: Sequence[Problem],
        trials: int,
        offsets: Sequence[Tensor] = (),
        *,
        whole: bool = True,
    ) -> None:
        self._terms, self._problems, self._trials, self._offsets = terms, problems, trials, offsets
        self._around = (
            torch.stack(list(offsets)).repeat_interleave(trials, 0) if offsets else None
        )  # (T, k, N, C, H, W)
        self._each = trials * (len(offsets[0]) if offsets else 1)
        self._read = Problem.joined(problems, trials)
        self._all = Problem.joined(problems, self._each) if offsets else self._read
        self._misfits = [(own, terms.likelihood.bind(problem)) for own, problem in self._parts(terms.likelihood.joins)]
        self._priors = [(prior, self._parts(prior.joins)) for prior in terms.priors]
        self._earlier = [
            Matching(terms, those, trials, offsets, whole=False)
            for those in zip(*(problem.earlier for problem in problems), strict=True)
        ]
        self._step: Program | None = None
        self._whole = whole and not self._earlier

    def __call__(self, point: Point, progress: float) -> Cost:
        return self._cost(point, self._terms.annealing(progress))

    def slope(self, point: Point, progress: float) -> tuple[Cost, Tensors]:
        if self._whole:
            self._whole = False
            self._step = compiled(partial(self._stepped, tuple(point)), self._factor(progress), *point.values())
        if self._step is None:
            return slope(self, point, progress)
        descended, score, *gradients = self._step(self._factor(progress), *point.values())
        return Cost(descended, score), dict(zip(point, gradients, strict=True))

    def project(self, point: Point) -> Point:
        return self._terms.variables.project(point, self._read)

    def _factor(self, progress: float) -> Tensor:
        return torch.full((), self._terms.annealing(progress), device=self._all.device)

    def _stepped(self, names: Sequence[str], factor: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        """Cost, score and slopes as a function of tensors."""
        point = dict(zip(names, values, strict=True))
        cost = self._cost(point, factor)
        gradients = torch.autograd.grad(cost.descended.sum(), values, materialize_grads=True)
        return (cost.descended.detach(), cost.score.detach(), *gradients)

    def only(self, kept: Sequence[int]) -> "Matching":
        """The objective of some of the observations, by place."""
        offsets = [self._offsets[place] for place in kept] if self._offsets else ()
        trials = torch.arange(len(self._problems) * self._trials).view(-1, self._trials)[list(kept)].flatten()
        terms = replace(self._terms, variables=self._terms.variables.only(trials))
        rest = Matching(terms, [self._problems[place] for place in kept], self._trials, offsets, whole=False)
        rest._step = self._step.only(trials.to(self._all.device)) if self._step is not None else None
        return rest

    def _cost(self, point: Point, factor: float | Tensor) -> Cost:
        variables = self._terms.variables
        images, own = self.cost(variables.decode(point, self._read), factor), variables.surprise(point, self._read)
        return Cost(images.descended + own, images.score + own * self._terms.weighs_priors)

    def cost(self, guess: Guess, factor: float | Tensor) -> Cost:
        """Of images that are read already; ``factor`` is the annealing's."""
        ball, around = self._terms.ball, self._around
        if ball is None or around is None:
            return self._at(guess, factor)
        near = self._at(ball.around(guess, around), factor)
        return Cost(ball.gathered(near.descended), ball.gathered(near.score))

    def _at(self, guess: Guess, factor: float | Tensor) -> Cost:
        likelihood, prior = self._likelihood(guess), self._prior(guess)
        return Cost(factor * likelihood + prior, likelihood + prior * self._terms.weighs_priors)

    def _likelihood(self, guess: Guess) -> Tensor:
        trees: dict[object, Tree] = {}
        costs = []
        for own, misfit in self._misfits:
            if misfit.of not in trees:
                wanted = misfit.of if callable(misfit.of) else _GRADIENTS[misfit.of]
                trees[misfit.of] = wanted(self._all, guess)
            costs.append(misfit.cost(of_trials(trees[misfit.of], own)))
        return sum((other._likelihood(guess) for other in self._earlier), _joined(costs))

    def _prior(self, guess: Guess) -> Tensor:
        costs = [
            _joined([prior(guess.images[own], problem) for own, problem in parts]) for prior, parts in self._priors
        ]
        return sum(costs, guess.images.new_zeros(len(guess.images)))

    def _parts(self, joins: bool) -> list[tuple[slice, Problem]]:
        if joins or len(self._problems) == 1:
            return [(slice(None), self._all)]
        each = self._each
        return [(slice(i * each, (i + 1) * each), problem) for i, problem in enumerate(self._problems)]


_GRADIENTS: Mapping[str, Callable[[Problem, Guess], Tree]] = {
    "mean": Problem.gradients,
    "products": lambda problem, guess: problem.passes(guess),
    "examples": Problem.example_gradients,
    "nothing": lambda *_: {},
}


def _joined(costs: Sequence[Tensor]) -> Tensor:
    return cat(list(costs)) if len(costs) > 1 else costs[0]
