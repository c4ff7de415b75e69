"""What an attack searches over."""

from attacks.variables.base import Point, Variables
from attacks.variables.between import Between
from attacks.variables.epochs import Epochs
from attacks.variables.pixels import Pixels

__all__ = ["Between", "Epochs", "Pixels", "Point", "Variables"]
