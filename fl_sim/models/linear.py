"""Models without convolutions."""

import math
from collections import OrderedDict

from pydantic import NonNegativeInt, PositiveInt
from torch import nn

from fl_sim.core.types import Task
from fl_sim.models.stochastic import Bottleneck


def softmax(task: Task) -> nn.Module:
    """Softmax regression with bias, from zero weights: gradients are linear in the image, known answers exist.

    Source: specs/bayes.md section 6, device Z.
    """
    head = nn.Linear(math.prod(task.image_shape), task.classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), head=head))


def mlp(task: Task, widths: tuple[PositiveInt, ...] = (256, 256), bottleneck: NonNegativeInt = 0) -> nn.Module:
    """Fully connected layers of the given widths, ReLU between; before the last one a variational bottleneck with
    ``bottleneck`` draws, if there are any (PRECODE, arXiv 2108.04725).
    """
    net = nn.Sequential(OrderedDict(flatten=nn.Flatten()))
    size = math.prod(task.image_shape)
    for i, width in enumerate(widths, 1):
        net.add_module(f"fc{i}", nn.Linear(size, width))
        net.add_module(f"relu{i}", nn.ReLU())
        size = width
    if bottleneck:
        net.add_module("bottleneck", Bottleneck(size, bottleneck))
    net.add_module("head", nn.Linear(size, task.classes))
    return net
