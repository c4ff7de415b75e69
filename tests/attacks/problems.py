"""Problems for tests: of a real observation, or of a target that is made up."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from attacks.likelihoods import Likelihood
from attacks.problem import Guess, Problem
from fl_sim.core.contracts import AnyDefense
from fl_sim.core.knowledge import DefenseKnowledge, Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.types import Observation, Tensors, Update
from tests.conftest import TASK

NOTHING: Mapping[str, Tensor] = {}


def told(defenses: tuple[AnyDefense, ...], drawn: Tensors = NOTHING) -> Knowledge:
    level = DefenseKnowledge.RANDOMNESS if drawn else DefenseKnowledge.PARAMETERS
    return Knowledge(defense_level=level, defenses=defenses, randomness=drawn)


def problem_of(seen: Observation, model: nn.Module, *defenses: AnyDefense, drawn: Tensors = NOTHING) -> Problem:
    return Problem.of(replace(seen, knowledge=told(defenses, drawn)), model, derive(0), "cpu")


def made_up(
    target: Tensors, *defenses: AnyDefense, drawn: Tensors = NOTHING, images: int = 1, members: tuple[int, ...] = (0,)
) -> Problem:
    """Of a gradient that no model has."""
    seen = Observation(
        round=1,
        client=0,
        members=members,
        task=TASK,
        broadcast={},
        buffers={},
        update=Update(delta=target, num_examples=images),
        knowledge=told(defenses, drawn),
    )
    labels = torch.zeros(images, dtype=torch.int64)
    return Problem(
        seen=seen,
        model=nn.Identity(),
        labels=labels,
        targets={k: t[None] for k, t in target.items()},
        scale_known=True,
        device="cpu",
    )


def cost(likelihood: Likelihood, gradients: Tensors, problem: Problem) -> Tensor:
    return likelihood.bind(problem).cost(gradients)


def guess_of(images: Tensor, problem: Problem) -> Guess:
    """Images ``(T, N, C, H, W)`` with the problem's own labels."""
    return Guess(images, problem.labels.expand(len(images), -1))


def image_gradient(likelihood: Likelihood, problem: Problem, images: Tensor) -> Tensor:
    """Where a likelihood of the mean gradient pulls the pixels."""
    images = images.detach().requires_grad_()
    total = cost(likelihood, problem.gradients(guess_of(images, problem)), problem).sum()
    (found,) = torch.autograd.grad(total, images)
    return found
