"""A deeper convolutional network with batch normalisation."""

from collections import OrderedDict

from pydantic import PositiveInt
from torch import nn

from fl_sim.core.types import Task
from fl_sim.models.layers import flat_size

_MULTIPLES = (1, 2, 2, 4, 4, 4, 4, 4)  # channels of each convolution, in units of the width
_POOLED = (6, 8)  # convolutions followed by max-pooling, from 1


def convnet(task: Task, width: PositiveInt = 64) -> nn.Module:
    """Eight 3x3 convolutions with batch norm and ReLU, max-pooled twice by 3: the ConvNet of ATS. Images from 9x9.

    Source: Gao et al. 2021 (arXiv:2011.12505) and their code, which lists nine convolutions but repeats one's name,
    so that eight are built.
    """
    features = OrderedDict[str, nn.Module]()
    channels = task.image_shape[0]
    for i, multiple in enumerate(_MULTIPLES, 1):
        features[f"conv{i}"] = nn.Conv2d(channels, multiple * width, 3, padding=1)
        features[f"bn{i}"] = nn.BatchNorm2d(multiple * width)
        features[f"relu{i}"] = nn.ReLU()
        if i in _POOLED:
            features[f"pool{i}"] = nn.MaxPool2d(3)
        channels = multiple * width
    net = nn.Sequential(features)
    size = flat_size(net, task)
    net.add_module("flatten", nn.Flatten())
    net.add_module("head", nn.Linear(size, task.classes))
    return net
