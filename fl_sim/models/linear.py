"""Models without convolutions."""

import math
from collections import OrderedDict
from typing import Annotated

from pydantic import Field, PositiveInt
from torch import nn

from fl_sim.core.types import Task
from fl_sim.models.stochastic import Dropout


def softmax(task: Task) -> nn.Module:
    """Softmax regression with bias, from zero weights: gradients are linear in the image, known answers exist.

    Device Z of :mod:`experiments.checks.zero`.
    """
    head = nn.Linear(math.prod(task.image_shape), task.classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), head=head))


def mlp(
    task: Task,
    widths: tuple[PositiveInt, ...] = (256, 256),
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> nn.Module:
    """Fully connected layers of the given widths, ReLU between, and dropout behind each with chance ``dropout``."""
    net = nn.Sequential(OrderedDict(flatten=nn.Flatten()))
    size = math.prod(task.image_shape)
    for i, width in enumerate(widths, 1):
        net.add_module(f"fc{i}", nn.Linear(size, width))
        net.add_module(f"relu{i}", nn.ReLU())
        if dropout:
            net.add_module(f"dropout{i}", Dropout(width, dropout))
        size = width
    net.add_module("head", nn.Linear(size, task.classes))
    return net
