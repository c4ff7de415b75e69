"""All of Flower. To watch a federation of your own, wrap its strategy in :class:`Intercept`."""

from fl_sim.core.types import Task
from fl_sim.federation.intercept import Intercept

__all__ = ["Intercept", "Task"]
