"""The same study on Flower's Ray and in this process: the same bits."""

from pathlib import Path

import pytest
import torch

from defenses.noise import Gaussian
from fl_sim.core.types import Protocol
from fl_sim.federation.engine import InProcess, RaySimulation
from tests.federation.world import federate, job

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.filterwarnings("ignore")]


def test_ray_and_one_process_see_the_same(tmp_path: Path) -> None:
    work = job(Protocol(mode="fedavg", batch_size=2, local_epochs=2, momentum=0.9), (Gaussian(std=0.01),))
    here = federate(work, cohort=3, engine=InProcess())
    there = federate(work, cohort=3, engine=RaySimulation(cpus=2))
    assert len(here.seen) == len(there.seen) == 6
    for mine, theirs in zip(here.seen, there.seen, strict=True):
        assert (mine.round, mine.client) == (theirs.round, theirs.client)
        assert all(torch.equal(mine.update.delta[k], theirs.update.delta[k]) for k in mine.update.delta)
    assert all(torch.equal(here.state.weights[k], there.state.weights[k]) for k in here.state.weights)
    assert [r.bytes_up for r in here.rounds] == [r.bytes_up for r in there.rounds]
