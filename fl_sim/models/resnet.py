"""Residual networks for small images. Nothing is done in place: attacks differentiate through every step twice."""

from collections import OrderedDict

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from fl_sim.core.types import Task


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, beside a shortcut; halves the image where ``stride`` is 2."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != out:
            self.shortcut.add_module("conv", nn.Conv2d(channels, out, 1, stride=stride, bias=False))
            self.shortcut.add_module("bn", nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(inner + self.shortcut(x))


def resnet18(task: Task, width: PositiveInt = 64) -> nn.Module:
    """ResNet-18 with a 3x3 stem and no max-pooling, as usual on 32x32 images.

    Source: He et al. 2015 (arXiv:1512.03385); initialised like torchvision's, with whose weights it agrees by order.
    """
    layers = OrderedDict[str, nn.Module](
        conv1=nn.Conv2d(task.image_shape[0], width, 3, padding=1, bias=False), bn1=nn.BatchNorm2d(width), relu=nn.ReLU()
    )
    channels = width
    for stage, stride in enumerate((1, 2, 2, 2)):
        for block in range(2):
            out = width * 2**stage
            layers[f"block{stage + 1}_{block + 1}"] = Block(channels, out, stride if block == 0 else 1)
            channels = out
    head = nn.Linear(channels, task.classes)
    net = nn.Sequential(layers | OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), head=head))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net
