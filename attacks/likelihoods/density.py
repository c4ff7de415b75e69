"""The defense's own density, read from the mechanisms that the adversary was told of."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import hypot
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat

from attacks.likelihoods.base import Likelihood, Misfit
from attacks.likelihoods.estimates import mechanisms
from attacks.problem import Problem, gradient_scale
from fl_sim.core.contracts import AnyDefense, Defense, ExampleDefense, ModelDefense
from fl_sim.core.density import Choice, Interval, Noise, Normal, log_likelihood
from fl_sim.core.errors import NoDensityError
from fl_sim.core.part import part
from fl_sim.core.trees import flat, map_tree, subtract
from fl_sim.core.types import Observation, Tensors, Update, UpdateKind


@part
class DefenseDensity(Likelihood):
    """``-log p(observed | guess)`` of the defenses in their order, in nats, constants included (arXiv 2111.04706).

    Args:
        supposed: Std of the Gaussian noise that the adversary supposes where the defenses add none, as a share of the
            root mean square of the entries that were sent and are not zero.
        std: The same in the update's own units, instead.
        randomness: Whether what the defenses drew (a pruning mask) is used where it is ``granted``, or ``ignored``:
            then it is summed over, entry by entry.

    Where only their kind is known the parameters are estimated (:mod:`attacks.likelihoods.estimates`); the scale of the
    noise is then fitted to each guess, if there are no choices or cells to sum over: a profile likelihood. A defense of
    the model is in the model already, and the density is that given what the guess says it drew. Where defenses have no
    joint density (see :func:`informs`), that of the noise alone is used, if it has one.
    The defenses of an aggregate are not used: the mean of several defended updates has another law.
    """

    needs_scale: ClassVar[bool] = True

    supposed: PositiveFloat = 0.1
    std: PositiveFloat | None = None
    randomness: Literal["granted", "ignored"] = "granted"

    def bind(self, problem: Problem) -> Misfit:
        known, seen = problem.seen.knowledge, problem.seen.update
        defenses = mechanisms(known, seen) if len(problem.seen.members) == 1 else ()
        drawn = known.randomness if self.randomness == "granted" else {}
        noise = Normal(self.std or self.supposed * _typical(seen.delta))
        try:
            stack = Stack.read(defenses, seen, drawn, noise, _step(problem.seen))
        except NoDensityError:
            stack = _noise_alone(defenses, seen, noise)
        stack = replace(stack, free=known.defenses is None and stack.noise is not noise)
        return Misfit(lambda g: -stack.log_likelihood(g, problem), of="examples" if stack.join else "mean")


@dataclass(frozen=True, slots=True)
class Stack:
    """Defenses, divided into what happened before the noise, the noise, and bounds from what happened after it."""

    join: ExampleDefense | None
    before: tuple[tuple[Defense, Tensors], ...]  # each with what it is known to have drawn
    noise: Noise
    observed: Interval
    free: bool = False  # whether the noise's scale is not known, and fitted to each guess where that has a closed form

    @classmethod
    def read(
        cls,
        defenses: Sequence[AnyDefense],
        seen: Update,
        drawn: Tensors,
        supposed: Noise,
        step: float | None = None,
    ) -> "Stack":
        """Go back from what was received to the noise; where there is none, as far as bounds lead.

        Args:
            defenses: In their order.
            seen: As received.
            drawn: What defenses are known to have drawn, as ``place/name``.
            supposed: The noise where they add none.
            step: What a single local step multiplies a gradient by to make a weight change; ``None``: not known, or
                several steps.

        Raises:
            NoDensityError: Noises that do not add, something between them, something after them that gives no bounds,
                or a defense of another kind.
        """
        join, steps = _kinds(defenses, drawn)
        noises = [_of_examples(join, seen, step), *(d.noise(seen.num_examples) for d, _ in steps)]
        loud = [place for place, noise in enumerate(noises) if noise is not None]
        noise = _added([noise for noise in noises if noise is not None]) or supposed
        end = loud[-1] if loud else 0  # of the steps up to the noise, the noise among them
        if steps and not loud and not steps[-1][1]:
            steps[-1] = (steps[-1][0], steps[-1][0].shown(seen.delta))
        observed, place = Interval(seen.delta, seen.delta), len(steps)
        while place > end and (inner := steps[place - 1][0].bounds(observed)) is not None:
            observed, place = inner, place - 1
        if loud and place > end:
            raise NoDensityError(f"{type(steps[place - 1][0]).__name__} after noise has no density")
        if between := [
            type(steps[place - 1][0]).__name__ for place in range(end) if place > loud[0] and place not in loud
        ]:
            raise NoDensityError(f"{', '.join(between)} between noises has no density")
        before = steps[: max(loud[0] - 1, 0)] if loud else steps[:place]
        stack = cls(join, tuple(before), noise, observed)
        stack.outcomes(map_tree(lambda t: t[None], seen.delta))  # refuses now, not at the first step
        return stack

    def log_likelihood(self, gradients: Tensors, problem: Problem) -> torch.Tensor:
        """``(T,)`` float64, of gradients as :class:`Misfit` ``of`` says."""
        clean = problem.as_update(self.join.join(gradients) if self.join else gradients)
        outcomes = self.outcomes(clean)
        if self.free and len(outcomes) == 1 and self.observed.low is self.observed.high:
            return self.noise.log_profile(subtract(outcomes[0].values, self.observed.high))
        return log_likelihood(self.observed, outcomes, self.noise)

    def outcomes(self, clean: Tensors) -> list[Choice]:
        """What may have become of a clean update before the noise; probabilities sum to 1."""
        found = [Choice(1.0, clean)]
        for defense, drawn in self.before:
            found = [
                Choice(c.probability * n.probability, n.values) for c in found for n in defense.choices(c[1], drawn)
            ]
        return found


def _kinds(
    defenses: Sequence[AnyDefense], drawn: Tensors
) -> tuple[ExampleDefense | None, list[tuple[Defense, Tensors]]]:
    """The defense on examples, if there is one, and those on the update, each with what it is known to have drawn."""
    joins = [d for d in defenses if isinstance(d, ExampleDefense)]
    if other := [type(d).__name__ for d in defenses if not isinstance(d, (Defense, ExampleDefense, ModelDefense))]:
        raise NoDensityError(f"{', '.join(other)}: no density is known")
    if len(joins) > 1:
        raise NoDensityError("several defenses on examples have no density together")
    if any(d.feedback for d in defenses if isinstance(d, Defense)):
        raise NoDensityError("error feedback adds what earlier rounds left, which is not known")
    steps: list[tuple[Defense, Tensors]] = [
        (d, {name.removeprefix(f"{place}/"): t for name, t in drawn.items() if name.startswith(f"{place}/")})
        for place, d in enumerate(defenses)
        if isinstance(d, Defense)
    ]
    return (joins[0] if joins else None), steps


def _step(seen: Observation) -> float | None:
    """See :meth:`Stack.read`; ``None`` also where only the kind is known: estimates are in the update's own units."""
    return gradient_scale(seen) if seen.one_step and seen.knowledge.defenses is not None else None


def _of_examples(join: ExampleDefense | None, seen: Update, step: float | None) -> Noise | None:
    """The noise of a defense on examples, in the update's units.

    Raises:
        NoDensityError: It was added in each of several steps.
    """
    noise = join.noise(seen.num_examples) if join else None
    if join is None or seen.kind == "gradient":
        return noise
    if step is None or not isinstance(noise, Normal | None):
        raise NoDensityError(f"{type(join).__name__} in local steps has no density")
    return noise and Normal(noise.std * abs(step))


def _typical(delta: Tensors) -> float:
    """Root mean square of the entries other than zero; 1 where all are."""
    entries = flat(delta)
    sent = entries[entries != 0]
    return sent.square().mean().sqrt().item() if len(sent) else 1.0


def _added(noises: Sequence[Noise]) -> Noise | None:
    """The law of their sum: independent Gaussians' variances add.

    Raises:
        NoDensityError: Several, and not all Gaussian.
    """
    if len(noises) < 2:
        return noises[0] if noises else None
    gaussian = [noise for noise in noises if isinstance(noise, Normal)]
    if len(gaussian) < len(noises):
        raise NoDensityError("several noises, not all Gaussian, have no density together")
    return Normal(hypot(*(noise.std for noise in gaussian)))


def _noise_alone(defenses: Sequence[AnyDefense], seen: Update, supposed: Noise) -> Stack:
    """As if nothing but its noise had been done to the update; as if nothing had, where that has no density."""
    known = (Defense, ExampleDefense) if seen.kind == "gradient" else (Defense,)
    loud = [d for d in defenses if isinstance(d, known) and d.noise(seen.num_examples) is not None]
    try:
        return Stack.read(loud, seen, {}, supposed)
    except NoDensityError:
        return Stack.read((), seen, {}, supposed)


def informs(defenses: Sequence[AnyDefense], kind: UpdateKind = "gradient", *, one_step: bool = False) -> bool:
    """Whether knowing these defenses gives :class:`DefenseDensity` more than plain squared differences.

    Args:
        defenses: In their order.
        kind: Of the updates.
        one_step: Whether a weight change is known to be of a single local step.
    """
    probe = Update(delta={"x": torch.zeros(2)}, num_examples=1, kind=kind)
    supposed = Normal(1.0)
    try:
        stack = Stack.read(defenses, probe, {}, supposed, 1.0 if one_step else None)
    except NoDensityError:
        return False
    told = stack.noise is not supposed or stack.observed.low is not probe.delta or stack.join is not None
    outcomes = stack.outcomes(probe.delta)
    return told or len(outcomes) > 1 or outcomes[0].values is not probe.delta
