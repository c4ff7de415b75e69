"""Generators whose inside an attack can search. To add one: a :class:`Generator`, a line in ``stored.GENERATORS``."""

from attacks.generators.base import Generator, Group, State, group
from attacks.generators.stored import GENERATORS, About, about, classifier, load, together

__all__ = ["GENERATORS", "About", "Generator", "Group", "State", "about", "classifier", "group", "load", "together"]
