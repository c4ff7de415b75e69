"""Error feedback: what a compressor loses is sent later."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from attacks.likelihoods import informs
from defenses import DEFENSES
from defenses.dpsgd import DpSgd
from defenses.sparsification import TopK
from fl_sim.core.contracts import Defense
from fl_sim.core.errors import ConfigError, FlSimError
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


@pytest.mark.parametrize(
    "defense", [made("topk", keep=0.1), made("signsgd"), made("powersgd", rank=1), made("quantize", bits=2)], ids=repr
)
def test_what_is_owed_does_not_grow_without_end(defense: Defense, tmp_path: Path) -> None:
    memory, norms = Residuals(tmp_path), []
    for round_ in range(1, 61):
        update = Update(delta={"w": torch.randn(20, 20, generator=derive(0, round_))}, num_examples=1)
        fed_back(defense, update, derive(1, round_), memory, (0, 0, round_))
        norms.append(flat(memory.before(0, 0, round_ + 1)).norm().item())
    assert max(norms[40:]) < 1.2 * max(norms[20:40]) < 400


def test_stochastic_rounding_may_not_feed_back() -> None:
    with pytest.raises(ConfigError, match="nearest"):
        made("quantize", bits=2, rounding="stochastic")


def test_an_update_that_is_no_number_is_not_sent_and_not_kept(tmp_path: Path) -> None:
    memory = Residuals(tmp_path)
    fed_back(made("topk", keep=0.5), Update(delta={"x": torch.ones(4)}, num_examples=1), derive(0), memory, (0, 0, 1))
    broken = Update(delta={"x": torch.tensor([1.0, torch.nan, 1.0, 1.0])}, num_examples=1)
    with pytest.raises(FlSimError, match="finite"):
        fed_back(made("topk", keep=0.5), broken, derive(0), memory, (0, 0, 2))
    assert bool(memory.before(0, 0, 3)["x"].isfinite().all())


def test_it_needs_a_place_for_what_is_left() -> None:
    with pytest.raises(FlSimError, match="place to keep"):
        fed_back(made("signsgd"), Update(delta={"x": torch.ones(2)}, num_examples=1), derive(0), None, (0, 0, 1))


def test_no_adversary_is_said_to_know_what_is_left() -> None:
    assert informs([TopK(keep=0.1)])
    assert not informs([TopK(keep=0.1, feedback=True)])


def test_dpsgd_of_local_steps_informs_nobody() -> None:
    assert informs([DpSgd(clip=1.0, noise_multiplier=1.0)])
    assert not informs([DpSgd(clip=1.0, noise_multiplier=1.0)], "delta")
    assert informs([DpSgd(clip=1.0, noise_multiplier=1.0)], "delta", one_step=True)
