"""SSIM and LPIPS as the released code of GIFD takes them (arXiv 2308.04699, at ff243fe): of normalised images.

For figures beside that paper's tables, and for nothing else: normalised pixels span about 4 where SSIM's constants
suppose 1, and LPIPS was fitted to [-1, 1].
"""

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from fl_sim.core.types import Task
from fl_sim.metrics.image import check_pair
from fl_sim.metrics.perceptual import Lpips

SETTINGS = (
    "SSIM and LPIPS of (x - mean) / std, as GIFD's released code takes them: SSIM with an 11x11 Gaussian window, sigma "
    "1.5, zeros beyond the border, C1 1e-4, C2 9e-4; LPIPS with the backbone and the upsampling named above, where the "
    "paper's tables have AlexNet and images of 64 pixels. Not to be compared with the standard figures"
)
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def normalised(images: Tensor, task: Task) -> Tensor:
    """``(N, C, H, W)`` in [0, 1] by the task's mean and std."""
    mean, std = (torch.tensor(moments).view(-1, 1, 1) for moments in (task.mean, task.std))
    return (images - mean) / std


def ssim(guess: Tensor, truth: Tensor, task: Task) -> Tensor:
    """Of images ``(N, C, H, W)`` in [0, 1], normalised here; ``(N,)`` in [-1, 1]."""
    check_pair(guess, truth)
    x, y = normalised(guess, task), normalised(truth, task)
    channels = x.shape[1]
    taps = torch.exp(-((torch.arange(_WINDOW) - _WINDOW // 2) ** 2) / (2 * _SIGMA**2))
    window = (torch.outer(taps, taps) / taps.sum() ** 2).expand(channels, 1, -1, -1)

    def mean(values: Tensor) -> Tensor:
        return conv2d(values, window, padding=_WINDOW // 2, groups=channels)

    mx, my = mean(x), mean(y)
    vx, vy, both = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    alike = (2 * mx * my + _C1) * (2 * both + _C2) / ((mx**2 + my**2 + _C1) * (vx + vy + _C2))
    return alike.flatten(1).mean(1)


def lpips(net: Lpips, guess: Tensor, truth: Tensor, task: Task) -> Tensor:
    """Of images ``(N, C, H, W)`` in [0, 1], C 1 or 3, normalised here; ``(N,)``."""
    check_pair(guess, truth)
    return net.of_any(normalised(guess, task), normalised(truth, task))
