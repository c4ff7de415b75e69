"""Pure data: a study, a client and a round name the same images on every machine. Start with :class:`ClientData`."""

from fl_sim.data.clients import ClientData
from fl_sim.data.datasets import DATASETS, load
from fl_sim.data.partition import Partition, indices
from fl_sim.data.types import Dataset, Source, Split

__all__ = ["DATASETS", "ClientData", "Dataset", "Partition", "Source", "Split", "indices", "load"]
