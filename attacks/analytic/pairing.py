"""Which label belongs to which image, once images and their gradients are known."""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from attacks.problem import Problem
from fl_sim.core.types import Batch
from fl_sim.training.local import State, example_gradients


def paired_labels(problem: Problem, bias: str, pixels: Tensor, deltas: Tensor) -> Tensor:
    """Labels ``(N,)``, one for each row of ``pixels`` ``(N, d)``, normalised: whatever made this gradient of it.

    Granted labels are only put in order, and so are all of a model in which images are not independent of each other.

    Args:
        bias: The parameter in which ``deltas`` ``(N, m)`` are the images' gradients, up to positive factors.
    """
    if problem.model.training:
        return problem.labels.cpu()
    likeness = _likeness(problem, bias, pixels, deltas)
    if problem.seen.knowledge.labels is None:
        return likeness.argmax(1).cpu()
    ordered = problem.labels.clone()
    for label in problem.labels:
        image = likeness[:, label].argmax()
        ordered[image] = label
        likeness[image] = -torch.inf
    return ordered.cpu()


def _likeness(problem: Problem, bias: str, pixels: Tensor, deltas: Tensor) -> Tensor:
    """Cosine of the gradients that each image would have with each label and those it has, ``(N, K)``."""
    images = problem.mean + problem.std * pixels.float().view(-1, *problem.seen.task.image_shape)
    state = State(problem.seen.broadcast, problem.seen.buffers)
    labels = torch.arange(problem.seen.task.classes, device=images.device)
    would = [example_gradients(problem.model, state, Batch(images, c.expand(len(images))))[bias] for c in labels]
    return torch.stack([cosine_similarity(g, deltas.float()) for g in would], 1).nan_to_num(-1.0)
