"""Models without convolutions."""

import math
from collections import OrderedDict

from pydantic import PositiveInt
from torch import nn

from fl_sim.core.types import Task


def softmax(task: Task) -> nn.Module:
    """Softmax regression with bias, from zero weights: gradients are linear in the image, known answers exist.

    Source: specs/bayes.md section 6, device Z.
    """
    head = nn.Linear(math.prod(task.image_shape), task.classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), head=head))


def mlp(task: Task, widths: tuple[PositiveInt, ...] = (256, 256)) -> nn.Module:
    """Fully connected layers of the given widths, ReLU between."""
    net = nn.Sequential(OrderedDict(flatten=nn.Flatten()))
    size = math.prod(task.image_shape)
    for i, width in enumerate(widths, 1):
        net.add_module(f"fc{i}", nn.Linear(size, width))
        net.add_module(f"relu{i}", nn.ReLU())
        size = width
    net.add_module("head", nn.Linear(size, task.classes))
    return net
