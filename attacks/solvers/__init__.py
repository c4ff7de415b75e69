"""How an attack searches."""

from attacks.solvers.base import Cost, Objective, Objectives, Solution, Solver, slope
from attacks.solvers.evolution import CmaEs
from attacks.solvers.first_order import Adam, Schedule
from attacks.solvers.quasi_newton import LBFGS

__all__ = ["LBFGS", "Adam", "CmaEs", "Cost", "Objective", "Objectives", "Schedule", "Solution", "Solver", "slope"]
