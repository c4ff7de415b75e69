"""Error feedback: what a compressor loses is sent later."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from attacks.likelihoods import informs
from defenses import DEFENSES
from defenses.sparsification import TopK
from fl_sim.core.contracts import Defense
from fl_sim.core.errors import FlSimError
from fl_sim.core.seeds import derive
from fl_sim.core.trees import flat
from fl_sim.core.types import Observation, Protocol, Update
from fl_sim.federation.client import fed_back
from fl_sim.federation.engine import InProcess
from fl_sim.runtime.residuals import Residuals
from tests.federation.world import federate, job

FROZEN = Protocol(batch_size=2, learning_rate=1e-30)  # every round's gradient is taken at the same weights


def made(name: str, **options: object) -> Defense:
    defense = DEFENSES[name](feedback=True, **options)
    assert isinstance(defense, Defense)
    return defense


@pytest.mark.parametrize(
    "defense", [made("topk", keep=0.02), made("signsgd"), made("powersgd", rank=1), made("quantize", bits=2)], ids=repr
)
def test_all_that_was_sent_and_what_is_left_is_all_there_was(defense: Defense, tmp_path: Path) -> None:
    """Over three rounds, in Flower, through the wire."""
    plain = federate(job(FROZEN), cohort=2, engine=InProcess(), rounds=3)
    sent = federate(job(FROZEN, (defense,), Residuals(tmp_path)), cohort=2, engine=InProcess(), rounds=3)
    for client in {one.client for one in plain.seen}:
        left = Residuals(tmp_path).before(client, 0, 99)
        names = list(plain.seen[0].update.delta)
        owed = flat({name: left[name] for name in names})
        assert owed.norm() > 0
        clean, arrived = total(plain.seen, client), total(sent.seen, client)
        assert (clean - arrived - owed).norm() < 1e-5 * clean.norm()


def total(seen: list[Observation], client: int) -> Tensor:
    return torch.stack([flat(one.update.delta) for one in seen if one.client == client]).sum(0)


@pytest.mark.parametrize(("feedback", "reached"), [(True, True), (False, False)])
def test_with_it_training_arrives_where_it_does_not_without(feedback: bool, reached: bool, tmp_path: Path) -> None:
    """Two clients pull x[0] to 10 and to -10, and x[1] to 1; each sends its largest entry only."""
    defense, aims = TopK(keep=0.5, feedback=feedback), torch.tensor([[10.0, 1.0], [-10.0, 1.0]])
    x = torch.zeros(2)
    for round_ in range(1, 301):
        sent = []
        for client, aim in enumerate(aims):
            update, place = Update(delta={"x": x - aim}, num_examples=1), (client, 0, round_)
            if feedback:
                sent.append(fed_back(defense, update, derive(0), Residuals(tmp_path), place)["x"])
            else:
                sent.append(defense.protect(update, derive(0)).update.delta["x"])
        x = x - 0.05 * torch.stack(sent).mean(0)
    assert bool((x - torch.tensor([0.0, 1.0])).abs().max() < 0.3) is reached


def test_it_needs_a_place_for_what_is_left() -> None:
    with pytest.raises(FlSimError, match="place to keep"):
        fed_back(made("signsgd"), Update(delta={"x": torch.ones(2)}, num_examples=1), derive(0), None, (0, 0, 1))


def test_no_adversary_is_said_to_know_what_is_left() -> None:
    assert informs([TopK(keep=0.1)])
    assert not informs([TopK(keep=0.1, feedback=True)])
