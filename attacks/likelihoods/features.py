"""What a fully connected layer betrays of an image behind convolutions: its input."""

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from attacks.likelihoods.base import Likelihood, Misfit
from attacks.likelihoods.distances import Support
from attacks.problem import Guess, Problem
from fl_sim.core.errors import UnmetKnowledgeError
from fl_sim.core.part import part
from fl_sim.core.types import Observation, Tensors
from fl_sim.training.entering import entering
from fl_sim.training.local import State

_TINY = 1e-30


@part
class Features(Likelihood):
    """Squared distance to what went into a fully connected layer, over that input's own squares.

    One image's gradient of ``W x + b`` is ``delta [x, 1]^T``: the weights' over the biases' is ``x``, exact without
    noise (arXiv 2003.14053, proposition D.1, there of a first layer). With noise on the weights it is the least-squares
    ``x``; noise of as many squares on the biases as they have themselves halves it. The network is run forward, and
    back from that layer: no gradient in the weights, no second derivative.

    Args:
        support: ``observed``: zeros are missing, and so are inputs of which nothing was sent (pruning, Soteria).
        dropped: Parameters that do not count: the layer is the first one, as the model lists them, that is whole.
    """

    joins: ClassVar[bool] = True

    support: Support = "all"
    dropped: tuple[str, ...] = ()

    def check(self, seen: Observation, model: nn.Module) -> None:
        if seen.update.num_examples > 1 or not seen.one_step:
            steps = "a single step" if seen.one_step else "several steps, or nobody knows how many,"
            raise UnmetKnowledgeError(
                f"the input of a layer is read off one step on one image, and this update is of {steps} on "
                f"{seen.update.num_examples}: set batch_size = 1 and one local step (and protocol = true in "
                "[adversary], to know of it), or use an attack that compares gradients, without feature_steps"
            )
        if self._layer(model) is None:
            raise UnmetKnowledgeError(
                "the input of a layer is read off a fully connected one with a bias, and this model has none that "
                "counts: use another model, or an attack that compares gradients, without feature_steps"
            )

    def bind(self, problem: Problem) -> Misfit:
        name = self._layer(problem.model)
        assert name is not None
        target, known = input_of(problem.targets, name, self.support)
        unit = (known * target.square()).sum(1).clamp_min(_TINY)

        def cost(inputs: Tensors) -> Tensor:
            return (known * (inputs[name].squeeze(1) - target).square()).sum(1) / unit

        return Misfit(cost, of=partial(_inputs, name))

    def _layer(self, model: nn.Module) -> str | None:
        linear = [
            name for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and layer.bias is not None
        ]
        whole = (name for name in linear if not {f"{name}.weight", f"{name}.bias"} & set(self.dropped))
        return next(whole, None)


def input_of(gradients: Tensors, name: str, support: Support) -> tuple[Tensor, Tensor]:
    """The input ``(T, n)`` of layer ``name`` that fits its weights' gradient best, given its biases', and what counts.

    The latter is 1, or 0 where no entry says anything: with ``support`` ``observed`` a column of zeros, which a dead
    unit leaves too.
    """
    weight, bias = gradients[f"{name}.weight"], gradients[f"{name}.bias"][:, None]
    there = (weight != 0).to(weight) if support == "observed" else torch.ones_like(weight)
    evidence = bias.square() @ there
    found, known = (bias @ weight) / evidence.clamp_min(_TINY), (evidence > 0).to(weight)
    return found.squeeze(1), known.squeeze(1)


def _inputs(name: str, problem: Problem, guess: Guess) -> Tensors:
    """``(T, N, n)``; where batch norm joins examples, those of a trial alone."""
    model, seen = problem.model, problem.seen
    layer, found = model.get_submodule(name), list[Tensor]()
    for some in torch.split(torch.arange(len(guess.images)), 1 if model.training else len(guess.images)):
        noise = {draw: z[some].flatten(0, 1) for draw, z in guess.noise.items()}
        state = State(seen.broadcast, {**seen.buffers, **noise})
        found.append(entering(model, state, layer, guess.images[some].flatten(0, 1)))
    return {name: torch.cat(found).view(*guess.images.shape[:2], -1)}
