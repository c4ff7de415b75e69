"""What an attack searches over."""

from attacks.variables.base import Point, Variables
from attacks.variables.pixels import Pixels

__all__ = ["Pixels", "Point", "Variables"]
