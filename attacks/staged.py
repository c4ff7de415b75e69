"""A search inside a generator, phase by phase: what GIFD, GIAS, GGL and GION have in common."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Generator as Draws
from torch import Tensor, nn
from torch.nn.functional import one_hot

from attacks.generators import Generator, State, load
from attacks.generators.fit import fitted
from attacks.likelihoods import Likelihood
from attacks.local import LocalSteps, OneStep, Unrolled
from attacks.memory import halved
from attacks.objective import Matching, Terms
from attacks.phases import Phase, Untrained
from attacks.priors import Prior
from attacks.problem import Problem, alike
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
        phases: What is searched, and how; in the order of the generator's stages.
        restarts: Chains with latents of their own, each through all phases.
        keep: The ``best`` image of all phases, or that of the ``last``; always of the chain in which it scores best.
        local: What is made of the client's local steps; epochs share their images.

    The generator is told the classes that the gradient is matched under, which are granted or inferred.
    """

    likelihood: Likelihood
    priors: tuple[Prior, ...] = ()
    generator: str | Untrained
    phases: tuple[Phase, ...]
    restarts: PositiveInt = 1
    keep: Literal["best", "last"] = "best"
    local: LocalSteps = OneStep()

    @property
    def work(self) -> int:
        return self.restarts * sum(phase.solver.steps * phase.solver.trials for phase in self.phases)

    def __post_init__(self) -> None:
        if isinstance(self.local, Unrolled) and self.local.epochs == "own":
            raise ConfigError("a generator makes one set of images: expected epochs that share them, got their own")

    def _check(self, seen: Observation, model: nn.Module) -> None:
        self.likelihood.check(seen)
        self.local.check(seen)
        generator = self._loaded(seen, "cpu")
        fitted(torch.zeros(1, *generator.image_shape), seen.task.image_shape)
        if generator.classes not in {0, seen.task.classes}:
            raise ConfigError(
                f"expected a generator of {seen.task.classes} classes, as the task has, or of none, got one of "
                f"{generator.classes} ({self.generator}): take another one"
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
        generator, state = self._begin(problems, rngs, device)
        tracks: list[list[Found]] = [[] for _ in range(len(problems) * self.restarts)]
        steps = place = 0
        for phase in self.phases:
            with torch.no_grad():
                state, place = generator.run(state, place, phase.place), phase.place
            found, state, taken = self._phase(phase, generator, state, problems, rngs[0])
            steps += taken
            for track, one in zip(tracks, found, strict=True):
                track.append(one)
        seconds = (time.monotonic() - began) / len(seen)
        each = [tracks[i : i + self.restarts] for i in range(0, len(tracks), self.restarts)]
        return [
            self._told(problem, own, Budget(iterations=steps, seconds=seconds, device=device))
            for problem, own in zip(problems, each, strict=True)
        ]

    def _loaded(self, seen: Observation, device: str) -> Generator:
        if isinstance(self.generator, str):
            return load(self.generator, device)
        return self.generator.build(seen.task.image_shape, seen.update.num_examples).to(device)

    def _begin(self, problems: Sequence[Problem], rngs: Sequence[Draws], device: str) -> tuple[Generator, State]:
        """The generator, and the state before its first stage: chain by chain, image by image."""
        generator = self._loaded(problems[0].seen, device)
        states = []
        for problem, rng in zip(problems, rngs, strict=True):
            labels = problem.labels.repeat(self.restarts)
            told = one_hot(labels, generator.classes).float() if generator.classes else labels[:, None][:, :0].float()
            states.append(generator.start(len(labels), told, rng))
        return generator, {name: torch.cat([state[name] for state in states]) for name in states[0]}

    def _phase(
        self, phase: Phase, generator: Generator, state: State, problems: Sequence[Problem], rng: Draws
    ) -> tuple[list[Found], State, int]:
        """What each chain finds, where it is then, and the steps taken. To the solver a chain is an observation."""
        chains = [problem for problem in problems for _ in range(self.restarts)]
        images, crowd = problems[0].seen.update.num_examples, phase.solver.trials
        variables = phase.over(generator, state, images, rng)
        many = variables.only(torch.arange(len(chains)).repeat_interleave(crowd)) if crowd > 1 else variables
        searched = self.local.over(many)
        terms = Terms(likelihood=self.likelihood, priors=self.priors, variables=searched, compared="likelihood")
        matching = Matching(terms, chains, crowd, whole=False)
        start = searched.start(chains[0], len(chains) * crowd, rng)
        solutions = phase.solver.solve_all(matching, matching.project(start), len(chains))
        names = many.start(chains[0], len(chains) * crowd, rng)
        point = {name: torch.cat([one.point[name] for one in solutions]) for name in names}
        with torch.no_grad():
            pictures = variables.decode(point, Problem.joined(chains, 1)).images
        found = [Found(one.score, picture, one.outcome) for one, picture in zip(solutions, pictures, strict=True)]
        return found, variables.reached(point), max(one.iterations for one in solutions)

    def _told(self, problem: Problem, tracks: Sequence[Sequence[Found]], budget: Budget) -> Reconstruction:
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
