"""What an adversary who knows which mechanisms there are, but not their strength, reads from what it received."""

from math import hypot

from fl_sim.core.contracts import AnyDefense, Defense, ExampleDefense, ModelDefense
from fl_sim.core.errors import NoDensityError
from fl_sim.core.knowledge import Knowledge
from fl_sim.core.types import Update


def mechanisms(known: Knowledge, received: Update) -> tuple[AnyDefense, ...]:
    """The defenses in their order: those granted, or with the parameters that explain what was received; or none.

    The last is estimated first, for its noise has to be told from what the others did. Where one cannot be estimated,
    or adds what earlier rounds left, nothing is used of any of them.
    """
    if known.defenses is not None:
        return known.defenses
    try:
        return estimated(known, received)
    except NoDensityError:
        return ()


def estimated(known: Knowledge, received: Update) -> tuple[AnyDefense, ...]:
    """The mechanisms of known kind, as one update shows them; those of the model are in the model.

    Raises:
        NoDensityError: One of them cannot be told from it.
    """
    found: list[AnyDefense] = []
    std = 0.0
    kinds = [kind for kind in known.defense_kinds or () if not issubclass(kind.mechanism, ModelDefense)]
    for kind in reversed(kinds):
        if kind.feedback:
            raise NoDensityError("error feedback adds what earlier rounds left, which is not known")
        found.insert(0, kind.mechanism.inferred(received, std))
        std = hypot(std, _std(found[0], received.num_examples))
    return tuple(found)


def _std(defense: AnyDefense, num_examples: int) -> float:
    noise = defense.noise(num_examples) if isinstance(defense, (Defense, ExampleDefense)) else None
    return noise.std if noise else 0.0
