"""What an attack searches over."""

from attacks.variables.base import Guess, Point, Variables
from attacks.variables.pixels import Pixels

__all__ = ["Guess", "Pixels", "Point", "Variables"]
