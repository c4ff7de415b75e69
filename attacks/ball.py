"""The Bayes-optimal adversary's objective proper: the posterior mass of a ball, not the density at its centre."""

import math
from typing import Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Generator, Tensor

from attacks.problem import Guess, Problem
from fl_sim.core.part import part


@part
class DeltaBall:
    """Monte Carlo over images drawn uniformly from the L2 ball around a guess (arXiv 2111.04706).

    Args:
        delta: Radius, L2 distance of one normalised image: the error that the adversary is content with.
        pairs: Antithetic pairs of draws, so ``k = 2 pairs`` evaluations of the objective a step.
        form: ``jensen``: the mean of ``log p`` over the ball, the paper's bound. ``exact``: the log of the mean of
            ``p``, whose maximum is the optimum of the 0/1 loss; in many dimensions one draw dominates it, so it is for
            few dimensions.

    The draws are made once a search, and in pairs ``u, -u``: objective values can be compared, and the optimum of
    ``jensen`` on a Gaussian posterior is the mode for every delta, as it must be; that of ``exact`` only with so many
    draws that the ball is filled on the posterior's own scale. The paper draws anew at each step; its released code
    draws nothing (delta = 0).
    """

    delta: PositiveFloat
    pairs: int = Field(default=4, ge=1)
    form: Literal["jensen", "exact"] = "jensen"

    def offsets(self, problem: Problem, rng: Generator) -> Tensor:
        """``(k, N, C, H, W)``, in [0, 1] units."""
        shape = (problem.seen.update.num_examples, *problem.seen.task.image_shape)
        drawn = uniform_in_ball(self.pairs * shape[0], math.prod(shape[1:]), self.delta, rng)
        half = drawn.view(self.pairs, *shape).to(problem.device) * problem.std
        return torch.cat([half, -half])

    def around(self, guess: Guess, offsets: Tensor) -> Guess:
        """Each trial becomes ``k`` trials, one after the other; ``offsets`` ``(T, k, N, C, H, W)``."""
        count = offsets.shape[1]
        images = (guess.images[:, None] + offsets).flatten(0, 1)
        noise, weights = (
            {name: v.repeat_interleave(count, 0) for name, v in tree.items()} for tree in (guess.noise, guess.weights)
        )
        return Guess(images, guess.labels.repeat_interleave(count, 0), noise, weights)

    def gathered(self, costs: Tensor) -> Tensor:
        """Costs ``(T k,)`` to one a trial, ``(T,)``."""
        by_trial = costs.view(-1, 2 * self.pairs)
        if self.form == "jensen":
            return by_trial.mean(1)
        return math.log(2 * self.pairs) - torch.logsumexp(-by_trial, 1)


def uniform_in_ball(count: int, dim: int, radius: float, rng: Generator) -> Tensor:
    """``(count, dim)`` points, uniform in the ball: a normal's direction, and radius ``delta U^(1/dim)``."""
    direction = torch.randn(count, dim, generator=rng)
    length = torch.rand(count, 1, generator=rng).pow(1 / dim)
    unit: Tensor = direction / direction.norm(dim=1, keepdim=True)
    return radius * length * unit
