"""Plain convolutional networks with average pooling, as attacked in the Bayesian framework's experiments."""

from collections import OrderedDict
from typing import Literal

from torch import nn

from fl_sim.core.types import Task
from fl_sim.models.layers import flat_size


def cnn(task: Task, init: Literal["torch", "lecun"] = "torch") -> nn.Module:
    """Two 3x3 convolutions (32, 64), each average-pooled, and a layer of 100: 333,526 weights on MNIST.

    Source: Balunovic et al. 2022 (arXiv:2111.04706), Table 2. Returns logits, not their log-softmax. ``init``:
    PyTorch's, or ``lecun``, that of the authors' Flax net: weights N(0, 1 / fan_in), sqrt(3) times larger, and zero
    biases; early gradients are several times larger then.
    """
    net = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(task.image_shape[0], 32, 3, padding=1),
            relu1=nn.ReLU(),
            pool1=nn.AvgPool2d(2),
            conv2=nn.Conv2d(32, 64, 3, padding=1),
            relu2=nn.ReLU(),
            pool2=nn.AvgPool2d(2),
        )
    )
    whole = _with_classifier(net, task, (100,))
    return whole if init == "torch" else whole.apply(_lecun)


def convbig(task: Task) -> nn.Module:
    """Convolutions 3x3 (32) and 1x1 (64), average-pooled, then layers of 2000 and 1000: the ConvBig of Soteria.

    Source: the attacks on Soteria in Balunovic et al. 2022 (arXiv:2111.04706), whose 1x1 convolution is padded by 1.
    """
    net = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(task.image_shape[0], 32, 3, padding=1),
            relu1=nn.ReLU(),
            pool1=nn.AvgPool2d(2),
            conv2=nn.Conv2d(32, 64, 1, padding=1),
            relu2=nn.ReLU(),
            pool2=nn.AvgPool2d(2),
        )
    )
    return _with_classifier(net, task, (2000, 1000))


def _lecun(layer: nn.Module) -> None:
    if isinstance(layer, (nn.Linear, nn.Conv2d)):
        assert layer.bias is not None
        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
        nn.init.zeros_(layer.bias)


def _with_classifier(net: nn.Sequential, task: Task, widths: tuple[int, ...]) -> nn.Sequential:
    """``net`` with fully connected layers of ``widths`` and the head added to it."""
    size = flat_size(net, task)
    net.add_module("flatten", nn.Flatten())
    for i, width in enumerate(widths, 1):
        net.add_module(f"fc{i}", nn.Linear(size, width))
        net.add_module(f"fc_relu{i}", nn.ReLU())
        size = width
    net.add_module("head", nn.Linear(size, task.classes))
    return net
