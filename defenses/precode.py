"""PRECODE: a variational bottleneck in the model, so that gradients hang on what a client draws."""

import math
from collections import OrderedDict
from copy import deepcopy
from typing import Annotated, ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Generator, Tensor, nn
from torch.nn.functional import softplus

from defenses.layers import linear_layer
from fl_sim.core.contracts import ModelDefense
from fl_sim.core.errors import ConfigError
from fl_sim.core.part import Unit, part
from fl_sim.core.stochastic import Charged, StandardNormal

_TINY = 1e-30  # std whose logarithm is still finite


class Code(Charged):
    """Means and stds ``(N, 2 * width)``, the latter before their softplus, to ``mean + std * draw`` ``(N, width)``.

    Charges ``kl`` for each bit between that normal law and N(0, 1).
    """

    def __init__(self, width: int, kl: float) -> None:
        super().__init__()
        self.noise = StandardNormal(width)
        self.kl = kl

    def forward(self, coded: Tensor) -> Tensor:
        mean, scale = coded.chunk(2, dim=-1)
        out: Tensor = mean + softplus(scale) * self.noise()
        return out

    def price(self, inputs: Tensor) -> Tensor:
        mean, scale = inputs.chunk(2, dim=-1)
        std = softplus(scale).clamp_min(_TINY)
        nats = (mean.square() + std.square() - 1).sum(1) / 2 - std.log().sum(1)
        return self.kl / math.log(2) * nats


class Bottleneck(nn.Module):
    """Features ``(N, features)`` to a mean and a std, one draw of ``width`` numbers, and back."""

    def __init__(self, features: int, width: int, kl: float) -> None:
        super().__init__()
        self.encoder = nn.Linear(features, 2 * width)
        self.code = Code(width, kl)
        self.decoder = nn.Linear(width, features)

    def forward(self, features: Tensor) -> Tensor:
        if features.dim() != 2:
            raise ConfigError(
                f"precode: expected features (N, n) before its layer, one row an image, got {tuple(features.shape)}: "
                "set layer to another one"
            )
        out: Tensor = self.decoder(self.code(self.encoder(features)))
        return out


@part
class Precode(ModelDefense):
    """A variational bottleneck before a fully connected layer of any model; arXiv 2108.04725.

    Args:
        width: Numbers drawn for each image.
        layer: The name of the ``torch.nn.Linear`` it comes before, such as ``net.head``; empty: the model's last one.
        kl: Weight of its Kullback-Leibler term in the loss; 0 leaves it out.

    Features become a mean and a std (softplus), ``z = mean + std * draw`` with draws from N(0, 1), and a linear layer
    leads back; an image has one draw in each gradient. Widths, place and loss are those of the released code
    (dAI-SY-Group/PRECODE). Attacks know the architecture and the loss, the Kullback-Leibler term included; the paper's
    own evaluation leaves it out of the attacker's gradient and draws anew in each step.

    Matching at the mean of the draws fails (``cnn`` at initialisation, 8 digits of MNIST, 400 steps: 8.6 dB, undefended
    58.7), but not behind a single fully connected layer. That layer's gradient over its bias gradient is the image for
    every draw; behind convolutions, matching only the layers before the bottleneck finds 29.4 dB, searching image and
    draw together 32.1.
    """

    surrogate: ClassVar[str] = (
        "ratio, inverting_gradients with dropped=[what the bottleneck and later layers have], or bayes draws=joint"
    )

    width: Annotated[PositiveInt, Unit("draws an image")] = 256
    layer: str = ""
    kl: Annotated[NonNegativeFloat, Unit("loss a bit")] = 1e-3

    def wrap(self, model: nn.Module, rng: Generator) -> nn.Module:
        if any(isinstance(module, Bottleneck) for module in model.modules()):
            raise ConfigError("precode: expected a model without a bottleneck, this one has one: list precode once")
        wrapped = deepcopy(model)
        name = linear_layer(wrapped, self.layer, "precode")
        layer = wrapped.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=rng)))
            _insert(wrapped, name, Bottleneck(layer.in_features, self.width, self.kl))
        return wrapped


def _insert(model: nn.Module, name: str, bottleneck: nn.Module) -> None:
    """Before the layer ``name``, which keeps its name where it stands in a ``Sequential``."""
    place, _, own = name.rpartition(".")
    parent = model.get_submodule(place)
    if not isinstance(parent, nn.Sequential):
        behind = OrderedDict(bottleneck=bottleneck, layer=parent.get_submodule(own))
        setattr(parent, own, nn.Sequential(behind))
        return
    children = list(parent.named_children())
    for child, _ in children:
        delattr(parent, child)
    for child, module in children:
        if child == own:
            parent.add_module("bottleneck", bottleneck)
        parent.add_module(child, module)
