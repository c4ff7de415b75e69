"""What goes into a layer of a network."""

from torch import Tensor, nn

from fl_sim.core.errors import FlSimError
from fl_sim.training.local import State, logits_of


def passed_on(model: nn.Module, state: State, layer: nn.Module, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """What ``layer``, one of ``model``'s, is given each time it is used, and the logits ``(N, K)``.

    Differentiable in ``images`` ``(N, C, H, W)``.
    """
    given = list[Tensor]()
    hook = layer.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    try:
        logits, _ = logits_of(model, state, images)
    finally:
        hook.remove()
    return given, logits


def entering(model: nn.Module, state: State, layer: nn.Module, images: Tensor) -> Tensor:
    """The input ``(N, n)`` of ``layer``, one of ``model``'s; differentiable in the images.

    Raises:
        FlSimError: The layer is used never, several times, or on other than one row an image.
    """
    given, _ = passed_on(model, state, layer, images)
    shapes = [tuple(features.shape) for features in given]
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][0] != len(images):
        name = next((name for name, module in model.named_modules() if module is layer), "")
        raise FlSimError(
            f"expected layer {name!r} to be used once, on features ({len(images)}, n), one row an image, got {shapes}: "
            "use another layer or model"
        )
    return given[0]
