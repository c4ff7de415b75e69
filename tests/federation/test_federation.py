"""A whole federation in this process: what the spy sees, what the strategy does, what bad clients cannot do."""

from collections.abc import Callable

import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord

from defenses.noise import Gaussian
from defenses.quantization import Quantize
from defenses.sparsification import TopK
from fl_sim.core.contracts import DataDefense, GradientDefense
from fl_sim.core.part import part
from fl_sim.core.types import Batch, Protocol, Tensors
from fl_sim.federation import wire
from fl_sim.federation.client import train_once
from fl_sim.federation.server import SERVER, STRATEGIES
from fl_sim.training.local import State, gradient, state_of
from tests.federation.world import CLIENTS, Trained, federate, job, small_model


def same(left: Tensors, right: Tensors) -> bool:
    return list(left) == list(right) and all(torch.equal(left[k], right[k]) for k in left)


def test_the_spy_sees_every_clients_own_gradient() -> None:
    work = job()
    out = federate(work)
    assert [(s.round, s.client) for s in out.seen] == [(r, c) for r in (1, 2) for c in range(CLIENTS)]
    for seen in out.seen:
        alone, _ = train_once(work, State(seen.broadcast, seen.buffers), seen.client, seen.round)
        assert same(seen.update.delta, alone.delta)


def test_fedsgd_is_one_step_along_the_mean_gradient() -> None:
    out = federate(job(Protocol(learning_rate=0.5)), rounds=1)
    start = state_of(small_model()).weights
    for name, after in out.state.weights.items():
        mean = torch.stack([s.update.delta[name] for s in out.seen]).mean(0)
        assert torch.allclose(after, start[name] - 0.5 * mean, atol=1e-6)


def test_two_runs_are_equal_to_the_bit() -> None:
    work = job(Protocol(mode="fedavg", batch_size=2, local_epochs=2, momentum=0.9), (Gaussian(std=0.01),))
    first, second = federate(work), federate(work)
    assert same(first.state.weights, second.state.weights)
    assert all(same(a.update.delta, b.update.delta) for a, b in zip(first.seen, second.seen, strict=True))


def test_the_cohort_is_the_studys_choice() -> None:
    first, second = federate(job(), cohort=2, rounds=4), federate(job(), cohort=2, rounds=4)
    chosen = [r.clients for r in first.rounds]
    assert chosen == [r.clients for r in second.rounds]
    assert all(len(clients) == 2 for clients in chosen)
    assert len(set(chosen)) > 1


def test_the_aggregate_view_shows_the_mean_and_nothing_else() -> None:
    alone, together = federate(job(), rounds=1), federate(job(), rounds=1, view="aggregate")
    (seen,) = together.seen
    assert seen.members == tuple(range(CLIENTS))
    assert seen.update.num_examples == CLIENTS
    for name, tensor in seen.update.delta.items():
        assert torch.allclose(tensor, torch.stack([s.update.delta[name] for s in alone.seen]).mean(0), atol=1e-7)


def test_pruned_messages_are_smaller_and_arrive_as_protected() -> None:
    plain, pruned = federate(job()), federate(job(defenses=(TopK(keep=0.05), Quantize())))
    assert pruned.rounds[0].bytes_up < plain.rounds[0].bytes_up / 2
    assert pruned.rounds[0].bytes_down == plain.rounds[0].bytes_down
    kept = sum(int(t.count_nonzero()) for t in pruned.seen[0].update.delta.values())
    assert 0 < kept <= 0.06 * sum(t.numel() for t in pruned.seen[0].update.delta.values())


@pytest.mark.parametrize("name", ["FedAdam", "FedAvgM", "FedMedian", "FedYogi", "FedAdagrad", "FedTrimmedAvg", "Krum"])
def test_any_strategy_trains(name: str) -> None:
    assert name in STRATEGIES
    options = {"FedAvgM": {"server_momentum": 0.9}}.get(name, {})
    out = federate(job(), strategy=name, options=options)
    assert len(out.seen) == 2 * CLIENTS
    assert not same(out.state.weights, state_of(small_model()).weights)
    assert all(t.dtype == torch.float32 for t in out.state.weights.values())


def poison(change: Callable[[Tensors], Tensors]) -> Callable[[Message], Message]:
    def bad(reply: Message) -> Message:
        delta = wire.from_record(reply.content.array_records[wire.UPDATE])
        reply.content[wire.UPDATE] = wire.to_record(change(delta))
        return reply

    return bad


def crash(reply: Message) -> Message:
    raise ValueError("out of battery")


def garbage(reply: Message) -> Message:
    name = next(iter(reply.content.array_records[wire.UPDATE]))
    reply.content[wire.UPDATE] = ArrayRecord({name: Array("float32", (3,), "numpy.ndarray", b"not an array")})
    return reply


def uncounted(reply: Message) -> Message:
    reply.content[wire.METRICS] = MetricRecord({wire.NUM_EXAMPLES: -5})
    return reply


HOSTILE = {
    "nan": (poison(lambda d: {k: t * torch.nan for k, t in d.items()}), "finite"),
    "infinity": (poison(lambda d: {k: t + torch.inf for k, t in d.items()}), "finite"),
    "shape": (poison(lambda d: {k: t[..., :1] for k, t in d.items()}), "to be torch.float32"),
    "missing": (poison(lambda d: dict(list(d.items())[1:])), "too, got"),
    "extra": (poison(lambda d: {**d, "backdoor": torch.ones(1)}), "backdoor"),
    "dtype": (poison(lambda d: {k: t.double() for k, t in d.items()}), "float64"),
    "raises": (crash, "out of battery"),
    "garbage": (garbage, "expected|decoded"),
    "count": (uncounted, "whole number from 1, got -5"),
}


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_a_bad_reply_is_refused_by_name_and_the_round_goes_on(kind: str) -> None:
    bad, reason = HOSTILE[kind]
    out, without = federate(job(), rounds=1, bad={2: bad}), _without_client_2()
    (round_,) = out.rounds
    assert [r.client for r in round_.refused] == [2]
    assert any(word in round_.refused[0].reason for word in reason.split("|"))
    assert round_.clients == (0, 1, 3)
    assert [s.client for s in out.seen] == [0, 1, 3]
    assert same(out.state.weights, without)


def _without_client_2() -> Tensors:
    out = federate(job(), rounds=1, bad={2: crash})
    return out.state.weights


def test_a_round_of_bad_replies_keeps_the_weights() -> None:
    out: Trained = federate(job(), rounds=1, bad=dict.fromkeys(range(CLIENTS), crash))
    assert same(out.state.weights, state_of(small_model()).weights)
    assert len(out.rounds[0].refused) == CLIENTS


def test_a_diverged_aggregate_is_noted_and_not_sent_out() -> None:
    huge = poison(lambda d: {k: torch.full_like(t, 3e38) for k, t in d.items()})
    out = federate(job(Protocol(learning_rate=1e3)), rounds=2, bad={1: huge})
    assert [(r.client, "lower the learning rate" in r.reason) for r in out.rounds[0].refused] == [(SERVER, True)]
    assert same(out.state.weights, state_of(small_model()).weights)
    assert out.rounds[1].clients == tuple(range(CLIENTS))  # who were sent weights they can use


@part
class Invert(DataDefense):
    """Photographic negative."""

    def transform(self, batch: Batch, rng: torch.Generator) -> Batch:
        return Batch(1 - batch.images, batch.labels)


@part
class Halve(GradientDefense):
    """Half the gradient."""

    def gradient(
        self, model: torch.nn.Module, weights: Tensors, buffers: Tensors, batch: Batch, rng: torch.Generator
    ) -> Tensors:
        return {k: g / 2 for k, g in gradient(model, State(weights, buffers), batch).tree.items()}


def test_defenses_run_on_data_then_gradient_then_update() -> None:
    out = federate(job(defenses=(TopK(keep=1.0), Halve(), Invert())), rounds=1)
    batch = job().data.batch(0, 1, 1)
    model = small_model().eval()
    expected = gradient(model, state_of(model), Batch(1 - batch.images, batch.labels)).tree
    assert all(torch.allclose(out.seen[0].update.delta[k], g / 2, atol=1e-8) for k, g in expected.items())
