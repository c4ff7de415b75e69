"""A search inside a generator, phase by phase: what GIFD, GIAS, GGL and GION have in common."""

import time
from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Generator as Draws
from torch import Tensor, nn
from torch.nn.functional import one_hot

from attacks.generators import Generator, State, classifier, load
from attacks.generators.fit import fitted
from attacks.likelihoods import Likelihood
from attacks.local import LocalSteps, OneStep, Unrolled
from attacks.memory import check_fits, halved
from attacks.objective import Matching, Terms
from attacks.phases import Phase, Untrained
from attacks.priors import Prior
from attacks.problem import Problem, alike
from attacks.solvers import Solution, Solver
from attacks.variables import Point, Variables
from attacks.variables.generated import Generated
from fl_sim.core.contracts import Attack
from fl_sim.core.errors import ConfigError
from fl_sim.core.part import part
from fl_sim.core.types import Budget, Observation, Outcome, Reconstruction


class Found(NamedTuple):
    """What a chain found in a phase."""

    score: float
    images: Tensor  # (N, C, H, W)
    outcome: Outcome


@part
class StagedSearch(Attack):
    """Minimise ``likelihood + priors`` over parts of a generator, one after the other, each from where the last ended.

    Args:
        likelihood: Cost of the guess's gradient; chains and phases are compared by it alone.
        priors: Costs of the guess's images; summed.
        generator: The path of a file, or an untrained network.
        phases: What is searched, and how; in the order of the generator's stages. Solvers' seconds are each chain's.
        restarts: Chains with latents of their own, each through all phases.
        keep: The ``best`` image of all phases, or that of the ``last``; always of the chain in which it scores best.
        coarse: Phases of a search before, from the same latents, if any: what it finds decides which classes the
            generator is told, by the generator's own classifier (label mapping of arXiv 2604.00955).
        local: What is made of the client's local steps; epochs share their images.

    The gradient is matched under the labels, which are granted or inferred. The generator is told the same, or after a
    coarse search the classes that this found; before, where it has another number of classes, all of them alike.
    """

    joins_rounds: ClassVar[bool] = True

    likelihood: Likelihood
    priors: tuple[Prior, ...] = ()
    generator: str | Untrained
    phases: tuple[Phase, ...]
    restarts: PositiveInt = 1
    keep: Literal["best", "last"] = "best"
    coarse: tuple[Phase, ...] = ()
    local: LocalSteps = OneStep()

    @property
    def work(self) -> int:
        return self.restarts * sum(phase.solver.steps * phase.solver.trials for phase in (*self.coarse, *self.phases))

    def __post_init__(self) -> None:
        if isinstance(self.local, Unrolled) and self.local.epochs == "own":
            raise ConfigError("a generator makes one set of images: expected epochs that share them, got their own")

    def _check(self, seen: Observation, model: nn.Module) -> None:
        self.likelihood.check(seen, model)
        self.local.check(seen)
        generator = self._loaded(seen, "cpu")
        fitted(torch.zeros(1, *generator.image_shape), seen.task.image_shape)
        if self.coarse:
            classifier(str(self.generator))
        elif generator.classes not in {0, seen.task.classes}:
            raise ConfigError(
                f"expected a generator of {seen.task.classes} classes, as the task has, or of none, got one of "
                f"{generator.classes} ({self.generator}): take another one, or let its own classifier find the class "
                'with condition = "mapped"'
            )
        if (last := max(phase.place for phase in self.phases)) >= generator.depth:
            raise ConfigError(f"expected stages below {generator.depth}, which the generator has, got {last}")
        for prior in self.priors:
            prior.check(seen, model)

    def _reconstruct(self, seen: Observation, model: nn.Module, rng: Draws, device: str) -> Reconstruction:
        return self._search_all([seen], [rng], model=model, device=device)[0]

    def _batched(
        self, seen: Sequence[Observation], model: nn.Module, rngs: Sequence[Draws], device: str
    ) -> list[Reconstruction]:
        if not alike(seen):
            return super()._batched(seen, model, rngs, device)
        return halved(partial(self._search_all, model=model, device=device), seen, rngs)

    def _search_all(
        self, seen: Sequence[Observation], rngs: Sequence[Draws], *, model: nn.Module, device: str
    ) -> list[Reconstruction]:
        began = time.monotonic()
        problems = [Problem.of(one, model, rng, device, self.local.passes) for one, rng in zip(seen, rngs, strict=True)]
        problems = [problems[0].shared(problem) for problem in problems]
        generator = self._loaded(seen[0], device)
        told, steps = [self._told(generator, problem) for problem in problems], 0
        if self.coarse:
            drawn = [rng.get_state() for rng in rngs]
            rough, steps = self._chains(self.coarse, generator, told, problems, rngs)
            told = [self._classes(generator, chosen(own, self.keep)) for own in rough]
            for rng, state in zip(rngs, drawn, strict=True):
                rng.set_state(state)
        each, taken = self._chains(self.phases, generator, told, problems, rngs)
        seconds = (time.monotonic() - began) / len(seen)
        return [
            self._answer(problem, own, Budget(iterations=steps + taken, seconds=seconds, device=device))
            for problem, own in zip(problems, each, strict=True)
        ]

    def _loaded(self, seen: Observation, device: str) -> Generator:
        if isinstance(self.generator, str):
            return load(self.generator, device)
        return self.generator.build(seen.task.image_shape, seen.update.num_examples).to(device)

    def _told(self, generator: Generator, problem: Problem) -> Tensor:
        """Weights of the generator's classes for each image ``(N, classes)``: of its label, or all alike."""
        if generator.classes == problem.seen.task.classes:
            return one_hot(problem.labels, generator.classes).float()
        return torch.full((len(problem.labels), generator.classes), 1 / max(1, generator.classes)).to(problem.device)

    def _classes(self, generator: Generator, found: Found) -> Tensor:
        """The classes of what was found, by the generator's own classifier, as weights ``(N, classes)``."""
        network = classifier(str(self.generator), str(found.images.device))
        with torch.no_grad():
            answers = network(fitted(found.images, generator.image_shape)).argmax(1)
        return one_hot(answers, generator.classes).float()

    def _chains(
        self,
        phases: Sequence[Phase],
        generator: Generator,
        told: Sequence[Tensor],
        problems: Sequence[Problem],
        rngs: Sequence[Draws],
    ) -> tuple[list[list[list[Found]]], int]:
        """What each problem's chains find, phase by phase, and the steps taken."""
        state, place, steps = self._begin(generator, told, rngs), 0, 0
        tracks: list[list[Found]] = [[] for _ in range(len(problems) * self.restarts)]
        for phase in phases:
            with torch.no_grad():
                state, place = generator.run(state, place, phase.place), phase.place
            found, state, taken = self._phase(phase, generator, state, problems, rngs[0])
            steps += taken
            for track, one in zip(tracks, found, strict=True):
                track.append(one)
        return [tracks[i : i + self.restarts] for i in range(0, len(tracks), self.restarts)], steps

    def _begin(self, generator: Generator, told: Sequence[Tensor], rngs: Sequence[Draws]) -> State:
        """The state before the first stage: chain by chain, image by image."""
        rows = [one.repeat(self.restarts, 1) for one in told]
        states = [generator.start(len(one), one, rng) for one, rng in zip(rows, rngs, strict=True)]
        return {name: torch.cat([state[name] for state in states]) for name in states[0]}

    def _phase(
        self, phase: Phase, generator: Generator, state: State, problems: Sequence[Problem], rng: Draws
    ) -> tuple[list[Found], State, int]:
        """What each chain finds, where it is then, and the steps taken. To the solver a chain is an observation."""
        chains = [problem for problem in problems for _ in range(self.restarts)]
        variables = phase.over(generator, state, problems[0].seen.update.num_examples, rng)
        solve = partial(self._solved, solver=phase.solver, variables=variables, chains=chains)
        solutions = halved(solve, range(len(chains)), ())
        names = variables.start(chains[0], len(chains), rng)
        point = {name: torch.cat([one.point[name] for one in solutions]) for name in names}
        with torch.no_grad():
            pictures = variables.decode(point, Problem.joined(chains, 1)).images
        found = [Found(one.score, picture, one.outcome) for one, picture in zip(solutions, pictures, strict=True)]
        return found, variables.reached(point), max(one.iterations for one in solutions)

    def _solved(
        self,
        places: Sequence[int],
        _: Sequence[Draws],
        *,
        solver: Solver,
        variables: Generated,
        chains: Sequence[Problem],
    ) -> list[Solution]:
        """What the solver finds in some of the chains, by place."""
        if len(places) > 1:
            one, start = self._begun(places[:1], solver.trials, variables, chains)
            check_fits(one, start, len(places), solver.copies, chains[0].device)
        matching, start = self._begun(places, solver.trials, variables, chains)
        return solver.solve_all(matching, matching.project(start), len(places))

    def _begun(
        self, places: Sequence[int], crowd: int, variables: Generated, chains: Sequence[Problem]
    ) -> tuple[Matching, Point]:
        """The objective of some of the chains, each with ``crowd`` trials, and where they start."""
        some: Variables = variables
        if crowd > 1 or len(places) < len(chains):
            some = variables.only(torch.tensor(places).repeat_interleave(crowd))
        own, searched = [chains[place] for place in places], self.local.over(some)
        terms = Terms(likelihood=self.likelihood, priors=self.priors, variables=searched, compared="likelihood")
        return Matching(terms, own, crowd, whole=False), searched.start(own[0], len(own) * crowd, Draws())

    def _answer(self, problem: Problem, tracks: Sequence[Sequence[Found]], budget: Budget) -> Reconstruction:
        best = chosen(tracks, self.keep)
        return Reconstruction(
            images=best.images.clamp(0, 1).cpu(),
            labels=problem.labels.cpu(),
            outcome=best.outcome,
            loss=best.score,
            budget=budget,
        )


def chosen(tracks: Sequence[Sequence[Found]], keep: Literal["best", "last"]) -> Found:
    """Of the chains' findings, phase by phase: that of the least score; NaN never is, nor is a truth looked at."""
    offered = [one for track in tracks for one in (track if keep == "best" else track[-1:])]
    return min(offered, key=lambda one: one.score if one.score == one.score else torch.inf)
