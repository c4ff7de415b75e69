"""Small worlds in which the checks watch a client."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from attacks.likelihoods import Likelihood
from attacks.posterior import PosteriorSearch
from attacks.priors import Prior
from attacks.problem import Guess, Problem
from attacks.solvers import LBFGS, Solver
from attacks.variables import Pixels
from defenses import DEFENSES
from fl_sim import models
from fl_sim.core.contracts import Defense
from fl_sim.core.knowledge import DefenseKnowledge, Knowledge
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Observation, Protocol, Task, Tensors
from fl_sim.training.local import local_update, state_of

TASK = Task(image_shape=(1, 8, 8), classes=10, mean=(0.5,), std=(0.1,))
"""Normalised images from -5 to 5: wide enough that the attacks' last clamp changes nothing."""

FREE = Pixels(box=False, init="mean")
QUASI_NEWTON = LBFGS(steps=30)


def watched(model: nn.Module, batch: Batch, task: Task = TASK, place: int = 0) -> Observation:
    """A client's undefended gradient, as the server sees it; ``place`` decides what a stochastic model draws."""
    state, protocol = state_of(model), Protocol(batch_size=len(batch.labels))
    update, _ = local_update(model, state, batch, protocol, derive(0, "order", place))
    return Observation(
        round=1,
        client=0,
        members=(0,),
        task=task,
        broadcast=state.weights,
        buffers=state.buffers,
        update=update,
        protocol=protocol,
        knowledge=Knowledge(labels=batch.labels),
    )


def defended(seen: Observation, stack: Sequence[Defense], place: int = 0) -> Observation:
    """``seen`` behind a stack of defenses, everything about them granted."""
    update, drawn = seen.update, dict[str, Tensor]()
    for i, defense in enumerate(stack):
        protected = defense.protect(update, derive(0, "defense", i, place))
        update = protected.update
        drawn |= {f"{i}/{name}": t for name, t in protected.randomness.items()}
    known = replace(seen.knowledge, defense_level=DefenseKnowledge.RANDOMNESS, defenses=tuple(stack), randomness=drawn)
    return replace(seen, update=update, knowledge=known)


def searched(
    seen: Observation, model: nn.Module, likelihood: Likelihood, *priors: Prior, solver: Solver = QUASI_NEWTON
) -> Tensor:
    """Normalised images ``(N, C, H, W)`` of a search over free pixels, from the mean colour."""
    attack = PosteriorSearch(likelihood=likelihood, priors=priors, variables=FREE, solver=solver)
    return normalised(attack(seen, model, derive(0, "search")).images)


def cost_at(batch: Batch, likelihood: Likelihood, seen: Observation, model: nn.Module) -> float:
    """What the likelihood makes of a batch as a guess at what is behind ``seen``."""
    problem = Problem.of(seen, model, derive(0), "cpu")
    gradients = problem.gradients(Guess(batch.images[None], batch.labels[None]))
    return likelihood.bind(problem).cost(gradients).item()


def normalised(images: Tensor) -> Tensor:
    return (images - TASK.mean[0]) / TASK.std[0]


def pixels(vector: Tensor) -> Tensor:
    """The image ``(1, 1, 8, 8)`` whose normalised pixels are ``vector`` ``(64,)``."""
    return (TASK.mean[0] + TASK.std[0] * vector).view(1, *TASK.image_shape)


def network(name: str, task: Task = TASK, **options: object) -> nn.Module:
    return models.build(name, task, 0, **options)


def random_batch(images: int, place: int = 0, task: Task = TASK) -> Batch:
    drawn: Tensor = torch.rand(images, *task.image_shape, generator=derive(0, "pixels", place))
    return Batch(drawn, torch.randint(10, (images,), generator=derive(0, "labels", place)))


def made(name: str, **options: object) -> Defense:
    defense = DEFENSES[name](**options)
    assert isinstance(defense, Defense)
    return defense


def rows(update: Tensors) -> tuple[Tensor, Tensor]:
    """Weight and bias gradient of the first layer."""
    weight, bias, *_ = update.values()
    return weight, bias


def problem_of(
    model: str, stack: Sequence[Defense], batch: Batch, place: int, task: Task = TASK
) -> tuple[Observation, Batch, Problem]:
    """An observation behind a stack of defenses, the truth, and the problem that an attack makes of it."""
    net = network(model, task, **({"widths": (32,)} if model == "mlp" else {}))
    seen = defended(watched(net, batch, task), stack, place)
    return seen, batch, Problem.of(seen, net, derive(0), "cpu")
