"""Distances between two batches of images ``(N, C, H, W)`` float32 in [0, 1]; each is ``(N,)``, never pooled."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fl_sim.core.errors import FlSimError

_MSE_FLOOR = 1e-15
_GAUSSIAN_FROM = 16  # pixels: the 11x11 window would see little but its own padding below
_SMALLEST = 7  # pixels


def check_pair(guess: Tensor, truth: Tensor) -> None:
    """Refuse what is not two equally shaped batches of images in [0, 1] (NaN is outside it).

    Raises:
        FlSimError: Says which of the two is wrong, and how.
    """
    if guess.ndim != 4 or guess.shape != truth.shape or not len(truth):
        raise FlSimError(
            f"expected two image batches of one shape (N, C, H, W), N >= 1, got {tuple(guess.shape)} and "
            f"{tuple(truth.shape)}: hand over reconstructions and originals one to one"
        )
    for name, images in (("reconstructions", guess), ("originals", truth)):
        if not ((images >= 0) & (images <= 1)).all():
            raise FlSimError(
                f"expected {name} in [0, 1], got [{images.min():.4g}, {images.max():.4g}]: un-normalise, clamp"
            )


def mse(guess: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error over an image's pixels and channels; ``(N,)`` in [0, 1]."""
    check_pair(guess, truth)
    return (guess - truth).square().flatten(1).mean(1)


def psnr(guess: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio ``10 log10(1 / MSE)``; ``(N,)`` in dB, in [0, 150].

    MSE is floored at 1e-15, float32's own rounding: 150 dB means "equal", and JSON never holds an infinity.
    """
    return -10 * torch.log10(mse(guess, truth).clamp_min(_MSE_FLOOR))


def ssim(guess: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) by torchmetrics; ``(N,)`` in [-1, 1]. See :func:`ssim_settings`."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    check_pair(guess, truth)
    gaussian = _is_gaussian(truth.shape)
    values = structural_similarity_index_measure(
        guess, truth, data_range=1.0, reduction="none", gaussian_kernel=gaussian, sigma=1.5, kernel_size=_SMALLEST
    )
    assert isinstance(values, Tensor)
    return values.reshape(len(truth))  # torchmetrics drops the batch axis of a single image


def ssim_settings(shape: Sequence[int]) -> str:
    """The window used for images of ``shape`` ``(..., H, W)``, in words for a report."""
    window = "Gaussian 11x11 window, sigma 1.5" if _is_gaussian(shape) else f"uniform {_SMALLEST}x{_SMALLEST} window"
    return f"{window}, reflected borders, K1 0.01, K2 0.03, data range 1, mean over channels"


def _is_gaussian(shape: Sequence[int]) -> bool:
    if min(shape[-2:]) < _SMALLEST:
        raise FlSimError(
            f"SSIM needs images of at least {_SMALLEST}x{_SMALLEST} pixels, got {tuple(shape[-2:])}: leave SSIM out"
        )
    return min(shape[-2:]) >= _GAUSSIAN_FROM
