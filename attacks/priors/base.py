"""The contract of a prior."""

from abc import ABC, abstractmethod

from torch import Tensor

from attacks.problem import Problem


class Prior(ABC):
    """Cost ``(T,)`` of images ``(T, N, C, H, W)`` in [0, 1] units: ``-log p(x)`` up to a constant."""

    @abstractmethod
    def __call__(self, images: Tensor, problem: Problem) -> Tensor: ...
