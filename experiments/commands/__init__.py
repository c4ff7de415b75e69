"""What the command line does. Prints to stdout only what was asked for; everything else goes to stderr."""

from experiments.commands.auditing import import_
from experiments.commands.checking import check
from experiments.commands.installed import doctor, list_, selftest
from experiments.commands.runs import attack, export, report, run, stage
from experiments.commands.shell import explain
from experiments.commands.training import train_density, train_generator
from experiments.commands.tuning import tune

__all__ = [
    "attack",
    "check",
    "doctor",
    "explain",
    "export",
    "import_",
    "list_",
    "report",
    "run",
    "selftest",
    "stage",
    "train_density",
    "train_generator",
    "tune",
]
