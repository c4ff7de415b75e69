"""What goes into a layer of a network."""

import torch
from torch import Tensor, nn

from fl_sim.training.local import State, logits_of


def entering(model: nn.Module, state: State, layer: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The input of ``layer``, one of ``model``'s, for ``images`` ``(M, C, H, W)``, and the logits ``(M, K)``."""
    caught = list[Tensor]()
    hook = layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    try:
        logits, _ = logits_of(model, state, images)
    finally:
        hook.remove()
    return caught[0], logits


def first_linear_with_bias(model: nn.Module) -> tuple[str, nn.Linear] | None:
    """The fully connected layer with a bias that is nearest to the images, and its name."""
    linear = ((name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear))
    return next(((name, layer) for name, layer in linear if layer.bias is not None), None)


def by_trial(model: nn.Module, state: State, layer: nn.Module, images: Tensor) -> Tensor:
    """``(T, N, d)`` of ``images`` ``(T, N, C, H, W)``; where batch norm joins examples, those of a trial alone."""
    trials = images.unbind() if model.training else [images.flatten(0, 1)]
    inputs = torch.cat([entering(model, state, layer, some)[0] for some in trials])
    return inputs.view(*images.shape[:2], -1)
