"""The layer that a defense is told to protect."""

from torch import nn

from fl_sim.core.errors import ConfigError, suggestion


def linear_layer(model: nn.Module, name: str, defense: str) -> str:
    """``name``, a ``torch.nn.Linear`` of ``model``; the last one's where it is empty. ``defense`` is who asks.

    Raises:
        ConfigError: ``model`` has no such fully connected layer.
    """
    known = [found for found, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not known:
        raise ConfigError(f"{defense} needs a model with a torch.nn.Linear, this one has none: take another defense")
    if name and name not in known:
        raise ConfigError(f"{defense}: layer must be one of {', '.join(known)}, got {name!r}{suggestion(name, known)}")
    return name or known[-1]
