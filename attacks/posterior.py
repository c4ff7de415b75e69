"""The adversary as an optimisation problem: likelihood x prior x variables x solver (arXiv 2111.04706)."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Generator, Tensor, nn

from attacks.ball import DeltaBall
from attacks.likelihoods import Likelihood
from attacks.local import LocalSteps, OneStep, Unrolled
from attacks.memory import check_fits, halved
from attacks.objective import Annealing, Matching, Terms
from attacks.priors import Prior
from attacks.problem import Problem, alike
from attacks.solvers import Solution, Solver
from attacks.variables import Pixels, Point, Variables
from fl_sim.core.contracts import Attack
from fl_sim.core.errors import ConfigError
from fl_sim.core.part import part
from fl_sim.core.types import Budget, Observation, Reconstruction


@part
class PosteriorSearch(Attack):
    """Minimise ``f_t * likelihood + priors`` over variables, from several starts at once.

    Args:
        likelihood: Cost of what a guess would have made, its gradient as a rule.
        priors: Costs of the guess's images; summed.
        variables: What is searched.
        solver: How.
        restarts: Independent starts, as many at a time as fit; the one with the best final objective is kept.
        annealing: The factor ``f_t``; restarts and iterates are compared with the factor at 1.
        ball: Search the centre of the best ball instead of the best point; ``None``: maximum a posteriori.
        local: What is made of the client's local steps.
        first: A search of the same variables, in a box or not, whose ends this one starts from, trial by trial; with
            one start each.

    Returns what the solver kept, by its own objective, which never sees the truth.
    """

    joins_rounds: ClassVar[bool] = True

    likelihood: Likelihood
    priors: tuple[Prior, ...] = ()
    variables: Variables
    solver: Solver
    restarts: PositiveInt = 1
    annealing: Annealing = Annealing()
    ball: DeltaBall | None = None
    local: LocalSteps = OneStep()
    first: "PosteriorSearch | None" = None

    def __post_init__(self) -> None:
        if self.first is not None and self.first._space != self._space:
            raise ConfigError("first: expected a search of the same variables and local steps, got others")
        if self.ball is not None and isinstance(self.local, Unrolled) and self.local.epochs == "own":
            raise ConfigError(
                'a ball is around one set of images, and local = "unrolled_epochs" searches one an epoch: set '
                'delta = 0, or local = "unrolled"'
            )

    def _reconstruct(self, seen: Observation, model: nn.Module, rng: Generator, device: str) -> Reconstruction:
        began = time.monotonic()
        problem = Problem.of(seen, model, rng, device, self.local.passes)
        start = self._searched.start(problem, self.restarts, rng)
        solve = partial(self._solved, start=start, problem=problem, offsets=self._offsets([problem], [rng]))
        found = min(halved(solve, range(self.restarts), ()), key=attrgetter("score"))
        return self._told(found, problem, time.monotonic() - began)

    def _solved(
        self, restarts: Sequence[int], _: Sequence[Generator], *, start: Point, problem: Problem, offsets: list[Tensor]
    ) -> list[Solution]:
        """The best of some of one observation's restarts."""
        if len(restarts) > 1:
            one = Matching(self._terms(), [problem], 1, offsets)
            check_fits(one, {k: v[:1] for k, v in start.items()}, len(restarts), self._copies, problem.device)
        own = {name: v[restarts[0] : restarts[-1] + 1] for name, v in start.items()}
        return self._solve([problem], offsets, own, len(restarts))

    def _batched(
        self, seen: Sequence[Observation], model: nn.Module, rngs: Sequence[Generator], device: str
    ) -> list[Reconstruction]:
        if not alike(seen):
            return super()._batched(seen, model, rngs, device)
        return halved(partial(self._search_all, model=model, device=device), seen, rngs)

    def _search_all(
        self, seen: Sequence[Observation], rngs: Sequence[Generator], *, model: nn.Module, device: str
    ) -> list[Reconstruction]:
        if len(seen) == 1:
            return [self._reconstruct(seen[0], model, rngs[0], device)]
        began = time.monotonic()
        problems = [Problem.of(one, model, rng, device, self.local.passes) for one, rng in zip(seen, rngs, strict=True)]
        problems = [problems[0].shared(problem) for problem in problems]
        starts = [self._searched.start(p, self.restarts, rng) for p, rng in zip(problems, rngs, strict=True)]
        start = {name: torch.cat([one[name] for one in starts]) for name in starts[0]}
        offsets = self._offsets(problems, rngs)
        one = Matching(self._terms(), problems[:1], self.restarts, offsets[:1])
        check_fits(one, starts[0], len(seen), self._copies, device)
        found = self._solve(problems, offsets, start, self.restarts)
        each = (time.monotonic() - began) / len(seen)
        return [self._told(one, problem, each) for one, problem in zip(found, problems, strict=True)]

    def _solve(self, problems: Sequence[Problem], offsets: list[Tensor], start: Point, trials: int) -> list[Solution]:
        """The best of each observation's trials, from where ``first`` ends them."""
        before = 0
        if self.first is not None:
            ends = self.first._solve([one for one in problems for _ in range(trials)], [], start, 1)
            start = {name: torch.cat([end.point[name] for end in ends]) for name in start}
            before = max(end.iterations for end in ends)
        return [
            replace(one, iterations=before + one.iterations) for one in self._ends(problems, offsets, start, trials)
        ]

    def _ends(self, problems: Sequence[Problem], offsets: list[Tensor], start: Point, trials: int) -> list[Solution]:
        """The best of each observation's trials. Those that nothing compares leave the search one by one."""
        apart = trials if self._leaves_one_by_one else 1
        each = [one for one in problems for _ in range(apart)]
        matching = Matching(self._terms(), each, trials // apart, offsets, whole=self.local.compiles)
        found = self.solver.solve_all(matching, matching.project(start), len(each))
        every = [found[place : place + apart] for place in range(0, len(found), apart)]
        return [
            replace(min(those, key=attrgetter("score")), iterations=max(one.iterations for one in those))
            for those in every
        ]

    @property
    def _leaves_one_by_one(self) -> bool:
        """Not where a term is bound to an observation, or draws for it; a time budget is for all its trials."""
        joined = self.likelihood.joins and all(prior.joins for prior in self.priors)
        return joined and self.ball is None and self.solver.leaves and self.solver.seconds is None

    @property
    def _copies(self) -> int:
        return max(self.solver.copies, self.first._copies if self.first else 0)

    def _told(self, found: Solution, problem: Problem, seconds: float) -> Reconstruction:
        guess = self._searched.answer(found.point, problem)
        labels = guess.labels[0].argmax(-1) if guess.labels.is_floating_point() else guess.labels[0]
        return Reconstruction(
            images=guess.images[0].detach().clamp(0, 1).cpu(),
            labels=labels.cpu(),
            outcome=found.outcome,
            loss=found.score,
            budget=Budget(iterations=found.iterations, seconds=seconds, device=problem.device),
        )

    @property
    def work(self) -> int:
        return self.restarts * (self.solver.steps + (self.first.work if self.first else 0))

    def _check(self, seen: Observation, model: nn.Module) -> None:
        self.likelihood.check(seen, model)
        self.local.check(seen)
        self.variables.check(seen, model)
        for prior in self.priors:
            prior.check(seen, model)
        if self.first is not None:
            self.first.check(seen, model)

    def objective(self, problem: Problem, rng: Generator) -> Matching:
        """The cost that the solver minimises; public for checks and plots."""
        return Matching(
            self._terms(), [problem], self.restarts, self._offsets([problem], [rng]), whole=self.local.compiles
        )

    @property
    def _space(self) -> tuple[Variables, LocalSteps]:
        """What it searches, whether in a box or not."""
        whole = replace(self.variables, box=False) if isinstance(self.variables, Pixels) else self.variables
        return whole, self.local

    @property
    def _searched(self) -> Variables:
        return self.local.over(self.variables)

    def _offsets(self, problems: Sequence[Problem], rngs: Sequence[Generator]) -> list[Tensor]:
        ball = self.ball
        return [ball.offsets(p, rng) for p, rng in zip(problems, rngs, strict=True)] if ball else []

    def _terms(self) -> Terms:
        return Terms(
            likelihood=self.likelihood,
            priors=self.priors,
            variables=self._searched,
            annealing=self.annealing,
            ball=self.ball,
        )


@part
class KnowsDefense(Attack):
    """An attack that may only run where the defense is granted: its kind at least, whose parameters are estimated."""

    needs: ClassVar[frozenset[str]] = frozenset({"defense"})
    joins_rounds: ClassVar[bool] = True  # as far as the search does

    search: Attack

    @property
    def work(self) -> int:
        return self.search.work

    def _check(self, seen: Observation, model: nn.Module) -> None:
        self.search.check(seen, model)

    def _reconstruct(self, seen: Observation, model: nn.Module, rng: Generator, device: str) -> Reconstruction:
        return self.search(seen, model, rng, device)

    def _batched(
        self, seen: Sequence[Observation], model: nn.Module, rngs: Sequence[Generator], device: str
    ) -> list[Reconstruction]:
        return self.search.batched(seen, model, rngs, device)
