"""Layers that draw random numbers."""

from torch import Tensor, nn
from torch.nn.functional import softplus

from fl_sim.core.stochastic import Kept, StandardNormal


class Bottleneck(nn.Module):
    """Variational bottleneck (PRECODE, arXiv 2108.04725): features to a mean and a std, one draw, and back.

    Args:
        features: Of the input ``(N, features)`` and of the output.
        width: Of the draw.

    Trained by the task's loss alone: PRECODE's KL term (weight 1e-3) is left out.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(features, 2 * width)
        self.noise = StandardNormal(width)
        self.decoder = nn.Linear(width, features)

    def forward(self, features: Tensor) -> Tensor:
        mean, scale = self.encoder(features).chunk(2, dim=-1)
        out: Tensor = self.decoder(mean + softplus(scale) * self.noise())
        return out


class Dropout(nn.Module):
    """Features times factors that are 0 with chance ``rate``: ``torch.nn.Dropout``, but the draw can be handed over.

    Without a draw it changes nothing, as in evaluation.
    """

    def __init__(self, features: int, rate: float) -> None:
        super().__init__()
        self.kept = Kept(features, rate)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = features * self.kept()
        return out
