"""Models by name. All take images ``(N, C, H, W)`` in [0, 1] and return logits ``(N, classes)``."""

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType

import torch
from pydantic import ConfigDict, ValidationError, validate_call
from torch import nn

from fl_sim.core.errors import ConfigError, suggestion
from fl_sim.core.seeds import derive_int
from fl_sim.core.types import Task
from fl_sim.models.cnn import cnn, convbig
from fl_sim.models.convnet import convnet
from fl_sim.models.layers import Model, Normalise, NormaliseFirst
from fl_sim.models.lenet import lenet
from fl_sim.models.linear import mlp, softmax
from fl_sim.models.resnet import resnet18

__all__ = ["MODELS", "Model", "Normalise", "build"]

MODELS: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        "softmax": softmax,
        "mlp": mlp,
        "lenet": lenet,
        "cnn": cnn,
        "convbig": convbig,
        "convnet": convnet,
        "resnet18": resnet18,
    }
)
"""Networks on normalised images, as functions of the task and their options; :func:`build` adds the normalisation."""


def build(name: str, task: Task, seed: int, /, **options: object) -> nn.Module:
    """The model ``name``, its weights a function of ``seed`` alone; torch's global generator is left as it was.

    Args:
        name: One of ``MODELS``, or ``package.module:factory``: your own, called with ``options`` only. Its
            weights keep their names. It gets images normalised by the task, returns logits, and must not change tensors
            in place, or attacks cannot differentiate twice.

    Raises:
        ConfigError: No such model or option, or the task's images are too small for it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_int(seed, "model"))
        network = _imported(name, options) if ":" in name else _registered(name, task, options)
    normalise = Normalise(task.mean, task.std)
    if ":" in name:
        network.register_forward_pre_hook(NormaliseFirst(normalise))
        return network
    return Model(normalise, network)


def _registered(name: str, task: Task, options: Mapping[str, object]) -> nn.Module:
    if name not in MODELS:
        raise ConfigError(
            f"model.name must be one of {', '.join(MODELS)} or package.module:factory, got {name!r}"
            f"{suggestion(name, MODELS)}"
        )
    takes = ", ".join(list(inspect.signature(MODELS[name]).parameters)[1:]) or "none"
    checked = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(MODELS[name])
    try:
        return checked(task, **options)
    except ValidationError as error:
        raise ConfigError(
            [
                f"model {name!r}: option {'.'.join(map(str, problem['loc']))}: {problem['msg']}, "
                f"got {problem['input']!r}; its options: {takes}"
                for problem in error.errors()
            ]
        ) from error


def _imported(name: str, options: Mapping[str, object]) -> nn.Module:
    module, _, attribute = name.partition(":")
    try:
        factory = getattr(import_module(module), attribute)
        inspect.signature(factory).bind(**options)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"model {name!r} should be an importable function that takes the options {sorted(options)}, got: {error}"
        ) from error
    network = factory(**options)
    if not isinstance(network, nn.Module):
        raise ConfigError(f"model {name!r} should return a torch.nn.Module, got {type(network).__name__}: return one")
    return network
