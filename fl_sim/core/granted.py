"""What an adversary must have been granted, or have seen, for an attack to make sense."""

from collections.abc import Callable, Mapping, Set

from torch import nn

from fl_sim.core.errors import UnmetKnowledgeError
from fl_sim.core.knowledge import DefenseKnowledge
from fl_sim.core.stochastic import drawing
from fl_sim.core.types import Observation

_GRANTED: Mapping[str, Callable[[Observation], bool]] = {
    "labels": lambda seen: seen.knowledge.labels is not None,
    "protocol": lambda seen: seen.protocol is not None,
    "defense": lambda seen: seen.knowledge.defense_level >= DefenseKnowledge.KIND,
}
_GRANTS: Mapping[str, str] = {
    "labels": "labels = true",
    "protocol": "protocol = true",
    "defense": 'defense = "kind"',
}
"""In a study's ``[adversary]``."""


def refuse_ungranted(attack: str, needs: Set[str], seen: Observation) -> None:
    """Refuse an attack that cannot do without something of ``needs`` that ``seen`` lacks.

    Raises:
        UnmetKnowledgeError: It lacks something.
    """
    if missing := sorted(name for name in needs if not _GRANTED[name](seen)):
        remedy = ", ".join(_GRANTS[name] for name in missing)
        raise UnmetKnowledgeError(
            f"{attack} needs to know {', '.join(missing)}, and this adversary may not: set {remedy} "
            "in [adversary], or pick another attack"
        )


def refuse_rounds(attack: str, seen: Observation, model: nn.Module, *, joins: bool) -> None:
    """Refuse an observation with earlier rounds that one guess cannot explain, or that the attack does not join.

    Raises:
        UnmetKnowledgeError: The attack takes one round, they are not one client's gradients, or single steps, or
            the model draws anew in each round.
    """
    if not seen.earlier:
        return
    if not joins:
        raise UnmetKnowledgeError(
            f"{attack} takes one observation, got those of {1 + len(seen.earlier)} rounds: leave joint = true out, or "
            "pick an attack that searches"
        )
    if not all(one.one_step for one in (seen, *seen.earlier)):
        raise UnmetKnowledgeError(
            f"{attack}: expected gradients of one client in all rounds, to fit them together, got sums of clients or "
            "weight changes of several steps: leave joint = true out, let a client's images fit into one batch and one "
            'epoch, or set federation.mode = "fedsgd", and adversary.view = "client"'
        )
    if drawn := sorted(drawing(model)):
        raise UnmetKnowledgeError(
            f"{attack}: expected a model that is the same function in all rounds, got one that draws {drawn[0]} anew: "
            "leave joint = true out"
        )
