"""The network of Deep Leakage from Gradients."""

from collections import OrderedDict

from torch import nn

from fl_sim.core.types import Task
from fl_sim.models.layers import flat_size


def lenet(task: Task) -> nn.Module:
    """DLG's LeNet: three 5x5 convolutions of 12 channels, sigmoid; twice differentiable everywhere.

    Source: Zhu et al. 2019 (arXiv:1906.08935) and their code. All weights and biases start uniform in (-0.5, 0.5).
    """
    features = OrderedDict[str, nn.Module]()
    channels = task.image_shape[0]
    for i, stride in enumerate((2, 2, 1), 1):
        features[f"conv{i}"] = nn.Conv2d(channels, 12, 5, stride=stride, padding=2)
        features[f"sigmoid{i}"] = nn.Sigmoid()
        channels = 12
    net = nn.Sequential(features)
    size = flat_size(net, task)
    net.add_module("flatten", nn.Flatten())
    net.add_module("head", nn.Linear(size, task.classes))
    for weight in net.parameters():
        nn.init.uniform_(weight, -0.5, 0.5)
    return net
