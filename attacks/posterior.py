"""The adversary as an optimisation problem: likelihood x prior x variables x solver (arXiv 2111.04706)."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeAlias

from pydantic import Field, PositiveInt
from torch import Generator, Tensor, nn

from attacks.ball import DeltaBall
from attacks.gradients import Tree
from attacks.likelihoods import Likelihood, Misfit
from attacks.priors import Prior
from attacks.problem import Guess, Problem, gradient_scale
from attacks.solvers import Cost, Objective, Solver
from attacks.variables import Point, Variables
from fl_sim.core.contracts import Attack
from fl_sim.core.errors import UnmetKnowledgeError
from fl_sim.core.part import part
from fl_sim.core.stochastic import drawing
from fl_sim.core.types import Budget, Observation, Reconstruction

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


@part
class PosteriorSearch(Attack):
    """Minimise ``f_t * likelihood + priors`` over variables, from several starts at once.

    Args:
        likelihood: Cost of the guess's gradient.
        priors: Costs of the guess's images; summed.
        variables: What is searched.
        solver: How.
        restarts: Independent starts; the one with the best final objective is kept.
        annealing: The factor ``f_t``; restarts and iterates are compared with the factor at 1.
        ball: Search the centre of the best ball instead of the best point; ``None``: maximum a posteriori.

    Returns what the solver kept, by its own objective, which never sees the truth.
    """

    likelihood: Likelihood
    priors: tuple[Prior, ...] = ()
    variables: Variables
    solver: Solver
    restarts: PositiveInt = 1
    annealing: Annealing = Annealing()
    ball: DeltaBall | None = None

    def _reconstruct(self, seen: Observation, model: nn.Module, rng: Generator, device: str) -> Reconstruction:
        began = time.monotonic()
        problem = Problem.of(seen, model, rng, device)
        start = self.variables.start(problem, self.restarts, rng)
        project = _Projection(self.variables, problem)
        found = self.solver.solve(self.objective(problem, rng), project(start), project)
        guess = self.variables.decode(found.point, problem)
        labels = guess.labels[0].argmax(-1) if guess.labels.is_floating_point() else guess.labels[0]
        return Reconstruction(
            images=guess.images[0].detach().clamp(0, 1).cpu(),
            labels=labels.cpu(),
            outcome=found.outcome,
            loss=found.score,
            budget=Budget(iterations=found.iterations, seconds=time.monotonic() - began, device=device),
        )

    def _check(self, seen: Observation, model: nn.Module) -> None:
        if self.likelihood.needs_scale and gradient_scale(seen) is None:
            raise UnmetKnowledgeError(
                f"{type(self.likelihood).__name__} compares gradients with their scale, and that of a weight change is "
                "unknown without the protocol: grant protocol in [adversary], or use a cosine attack"
            )
        self.variables.check(seen, model)
        for prior in self.priors:
            prior.check(seen, model)

    def objective(self, problem: Problem, rng: Generator) -> Objective:
        """The cost that the solver minimises; public for checks and plots."""
        misfit = self.likelihood.bind(problem)
        offsets = None if self.ball is None else self.ball.offsets(problem, rng)

        def cost(point: Point, progress: float) -> Cost:
            guess = self.variables.decode(point, problem)
            if self.ball is None or offsets is None:
                return self._cost(guess, problem, misfit, progress)
            near = self._cost(self.ball.around(guess, offsets), problem, misfit, progress)
            return Cost(self.ball.gathered(near.descended, offsets), self.ball.gathered(near.score, offsets))

        return cost

    def _cost(self, guess: Guess, problem: Problem, misfit: Misfit, progress: float) -> Cost:
        likelihood = misfit.cost(_GRADIENTS[misfit.of](problem, guess))
        prior = sum((p(guess.images, problem) for p in self.priors), _surprise(guess, problem))
        return Cost(self.annealing(progress) * likelihood + prior, likelihood + prior)


_GRADIENTS: Mapping[str, Callable[[Problem, Guess], Tree]] = {
    "mean": Problem.gradients,
    "products": lambda problem, guess: problem.passes(guess),
    "examples": Problem.example_gradients,
    "nothing": lambda *_: {},
}


def _surprise(guess: Guess, problem: Problem) -> Tensor:
    """``-log p`` of what the model is supposed to have drawn, up to its constant; ``(T,)``."""
    laws = drawing(problem.model) if guess.noise else {}
    costs = [laws[name].surprise(z).flatten(1).sum(1) for name, z in guess.noise.items()]
    return sum(costs, guess.images.new_zeros(len(guess.images)))


@dataclass(frozen=True)
class _Projection:
    """The variables' projection, bound to one problem."""

    variables: Variables
    problem: Problem

    def __call__(self, point: Point) -> Point:
        return self.variables.project(point, self.problem)


@part
class KnowsDefense(Attack):
    """An attack that may only run where the defense and its parameters are granted."""

    needs: ClassVar[frozenset[str]] = frozenset({"defense"})

    search: PosteriorSearch

    def _check(self, seen: Observation, model: nn.Module) -> None:
        self.search.check(seen, model)

    def _reconstruct(self, seen: Observation, model: nn.Module, rng: Generator, device: str) -> Reconstruction:
        return self.search(seen, model, rng, device)
