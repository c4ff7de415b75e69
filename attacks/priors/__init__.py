"""What images are like before anything is observed: the second term of every attack."""

from attacks.priors.base import Prior
from attacks.priors.total_variation import TotalVariation

__all__ = ["Prior", "TotalVariation"]
