"""One image, layer by layer from the end: recursive gradient attack."""

import math
import time

import torch
from pydantic import PositiveInt
from torch import Generator, Tensor, nn

from attacks.analytic.chain import Link, links_of
from attacks.analytic.first_layer import FirstLayer, nothing, pictures
from attacks.analytic.ratio import input_of, nearest_rank_one
from attacks.problem import Problem
from fl_sim.core.contracts import Attack
from fl_sim.core.errors import UnmetKnowledgeError
from fl_sim.core.part import part
from fl_sim.core.types import Batch, Budget, Observation, Outcome, Reconstruction
from fl_sim.training.local import State, gradient

_CONSISTENT = 1e-3  # the loss of a reconstruction that explains the gradient
_ROUNDING = 1e-12


@part
class RGap(Attack):
    """The image behind a chain of layers whose activations can be undone. R-GAP, arXiv 2010.07733.

    The input of the last layer is a ratio of gradients. Undoing an activation gives what the layer before it made of
    its own input, which is linear in that input; and so is that layer's weight gradient, once the gradient at its
    output is known. Both together are solved by least squares, and so on to the image.

    Args:
        steps: Of conjugate gradients, at most, a layer.

    The loss is the sine of the angle between the observed gradient and that of the image found: 0 when exact, and then
    it ends as ``converged``. Exact for one image in float32; noise is multiplied from layer to layer. ReLU and pooling
    lose what would be needed: of the registered models this is for lenet.

    Differs from the paper and its code (breaching has it): equations are weighed by how well float32 knows them, the
    slope of the activation for those of the output, so that saturated units do no harm (in lenet: tens of dB); and they
    are never written down as a matrix.
    """

    steps: PositiveInt = 20000

    def _check(self, seen: Observation, model: nn.Module) -> None:
        if seen.update.num_examples != 1:
            raise UnmetKnowledgeError(
                f"this attack takes one image back through the model, and {seen.update.num_examples} are in this "
                "update: set batch_size = 1, or use another attack"
            )
        links_of(Problem.of(seen, model, Generator(), "cpu"))

    def _reconstruct(self, seen: Observation, model: nn.Module, rng: Generator, device: str) -> Reconstruction:
        began = time.monotonic()
        problem = Problem.of(seen, model, rng, device)
        links, last = links_of(problem)
        head = FirstLayer.of(problem, (f"{last}.weight", f"{last}.bias"))
        if not head.says_something():
            return nothing(problem, began)
        image, spent = self._traced(links, head)
        loss = _misfit(problem, image)
        return Reconstruction(
            images=pictures(problem, image),
            labels=problem.labels.cpu(),
            outcome=Outcome.CONVERGED if loss < _CONSISTENT else Outcome.OUT_OF_STEPS,
            loss=loss,
            budget=Budget(iterations=spent, seconds=time.monotonic() - began, device=device),
        )

    def _traced(self, links: list[Link], head: FirstLayer) -> tuple[Tensor, int]:
        """The first link's input, and the steps spent on it."""
        found, spent = input_of(nearest_rank_one(head.gradient, missing=True)), 0
        delta = head.gradient[None, :, -1] @ head.parameters[:, :-1]
        for link in reversed(links):
            output, slope = link.undo(found)
            delta = delta.view(link.out) * slope
            found, steps = least_squares(link, output, slope, delta, self.steps)
            delta = link.backward(delta, link.weight)
            spent += steps
        return found, spent


def least_squares(link: Link, output: Tensor, slope: Tensor, delta: Tensor, steps: int) -> tuple[Tensor, int]:
    """The input whose output and weight gradient are nearest to ``output`` and the link's own; and the steps taken.

    By conjugate gradients on the normal equations. An error of the activation's output is one of ``output`` divided by
    ``slope``; an error of the gradient is taken to be in proportion to its size.
    """
    trust = 1 / link.gradient.square().mean().sqrt().clamp_min(1e-30)
    rest, rest_of_weights = slope * output, trust * link.gradient
    found = torch.zeros(link.shape, dtype=output.dtype, device=output.device)
    residual = link.backward(slope * rest, link.weight) + trust * link.backward(delta, rest_of_weights)
    direction, size = residual, residual.square().sum()
    enough, step = _ROUNDING**2 * size, 0
    while size > enough and step < steps:
        change, of_weights = slope * link.forward(direction, link.weight), trust * link.weigh(direction, delta)
        length = size / (change.square().sum() + of_weights.square().sum())
        found, rest = found + length * direction, rest - length * change
        rest_of_weights = rest_of_weights - length * of_weights
        residual = link.backward(slope * rest, link.weight) + trust * link.backward(delta, rest_of_weights)
        before, size = size, residual.square().sum()
        direction, step = residual + size / before * direction, step + 1
    return found, step


def _misfit(problem: Problem, image: Tensor) -> float:
    """Sine of the angle between the gradient that the normalised ``image`` has and the observed one, in [0, 1]."""
    pixels = problem.mean + problem.std * image.float().view(1, *problem.seen.task.image_shape)
    state = State(problem.seen.broadcast, problem.seen.buffers)
    tree = gradient(problem.model, state, Batch(pixels, problem.labels)).tree
    mine, theirs = (torch.cat([t[name].reshape(-1) for name in tree]).double() for t in (tree, problem.target))
    rest = theirs - (theirs @ mine) / (mine @ mine).clamp_min(1e-300) * mine
    sine = float(rest.norm() / theirs.norm())
    return sine if math.isfinite(sine) else 1.0


def r_gap(*, steps: int = 20000) -> Attack:
    """Recursive: from the last layer back to the image, one linear system a layer. Needs lenet. arXiv 2010.07733.

    On one CPU core a second or two for a fresh lenet on CIFAR-10, ten where training has saturated it.
    """
    return RGap(steps=steps)
