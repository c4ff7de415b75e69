"""What all defenses have in common, whatever they change."""

from typing import ClassVar, Self

from fl_sim.core.errors import NoDensityError
from fl_sim.core.types import Update


class Mechanism:
    """A defense of any kind; :mod:`fl_sim.core.contracts` has the kinds."""

    surrogate: ClassVar[str] = ""
    """What an attack that knows of it does instead of using a density, where it has none."""

    @classmethod
    def inferred(cls, received: Update, noise: float) -> Self:
        """With the parameters that an adversary who knows only the mechanism reads from one update.

        Args:
            received: What the server has, after every mechanism; any values, zeros too.
            noise: Std of what later mechanisms added to this one's output, estimated before; 0: nothing.

        Raises:
            NoDensityError: They cannot be told from that.
        """
        del received, noise
        instead = f", or use {cls.surrogate}" if cls.surrogate else ""
        raise NoDensityError(
            f"the parameters of {cls.__name__} cannot be told from an update: "
            f'set defense = "parameters" in [adversary]{instead}'
        )


def has_estimate(kind: type[Mechanism]) -> bool:
    """Whether the parameters of mechanisms of this class can be read from an update."""
    return kind.inferred.__func__ is not Mechanism.inferred.__func__  # type: ignore[attr-defined]
