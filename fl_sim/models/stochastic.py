"""Layers that draw random numbers."""

from torch import Tensor, nn

from fl_sim.core.stochastic import Kept


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
