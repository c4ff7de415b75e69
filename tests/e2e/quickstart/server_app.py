from collections.abc import Callable

from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from tests.e2e.quickstart.task import Net


def start(grid: Grid, wrap: Callable[[Strategy], Strategy]) -> Result:
    """The quickstart's server; ``wrap`` is where an auditor adds three lines."""
    strategy = wrap(FedAvg(fraction_evaluate=1.0, min_train_nodes=3, min_available_nodes=3, min_evaluate_nodes=3))
    arrays = ArrayRecord(Net().state_dict())
    return strategy.start(grid=grid, initial_arrays=arrays, train_config=ConfigRecord({"lr": 0.1}), num_rounds=2)
