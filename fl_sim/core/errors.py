"""Every error this project raises on purpose.

* FlSimError
  - ConfigError          a study or a command is wrong; holds all problems at once
  - MissingDataError     a data set or weight file is not where it was looked for
  - UnmetKnowledgeError  an attack needs what this adversary may not know
  - NoDensityError       a defense, or a stack of them, has no density
  - RefusedReplyError    a client's reply is not what the protocol promises
  - StoreError           a run folder cannot be read, or belongs to another study

Messages say what was expected, what was there, and what to do.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class FlSimError(Exception):
    """Base class: catch it to tell our refusals from bugs."""


class ConfigError(FlSimError):
    """A study or a command is wrong.

    Args:
        problems: Every problem found, one sentence each.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class MissingDataError(FlSimError):
    """A file that the study needs is not there."""


class UnmetKnowledgeError(FlSimError):
    """An attack needs what this adversary may not know."""


class NoDensityError(FlSimError):
    """A mechanism, or a stack of them, has no density that an attack could use; says why."""


class RefusedReplyError(FlSimError):
    """A client's reply is not what the protocol promises."""


class StoreError(FlSimError):
    """A run folder cannot be read, or belongs to another study."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """`` did you mean ...?`` for the end of a message, or nothing where no known name is near."""
    return "".join(f"; did you mean {near!r}?" for near in get_close_matches(name, list(known), n=1))
