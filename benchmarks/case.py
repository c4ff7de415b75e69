"""One exact CIFAR-10 test image, and what a server sees of it."""

from typing import NamedTuple

from torch import nn

from fl_sim import models
from fl_sim.core.seeds import derive
from fl_sim.core.types import Batch, Observation, Protocol
from fl_sim.data import ClientData
from fl_sim.data.transforms import to_unit
from fl_sim.training.local import local_update, state_of

SEED = 0  # of the networks' weights


class Case(NamedTuple):
    """An undefended gradient of one image, the network it was taken of, and the image itself, for the judge alone."""

    seen: Observation
    model: nn.Module
    truth: Batch


def case(name: str, index: int) -> Case:
    """Test image ``index`` through the model ``name``, freshly initialised, in eval mode; labels are not granted."""
    data = ClientData(name="cifar10")
    test, model = data.dataset().test, models.build(name, data.task(), SEED)
    truth = Batch(to_unit(test.images[index : index + 1]), test.labels[index : index + 1])
    state, protocol = state_of(model), Protocol(mode="fedsgd", batch_size=1, batchnorm="eval")
    update, _ = local_update(model, state, truth, protocol, derive(SEED, "order"))
    seen = Observation(
        round=1,
        client=0,
        members=(0,),
        task=data.task(),
        broadcast=state.weights,
        buffers=state.buffers,
        update=update,
        protocol=protocol,
    )
    return Case(seen, model, truth)
