import pytest
import torch

from fl_sim.core.errors import ConfigError, FlSimError
from fl_sim.federation import wire
from fl_sim.federation.client import client_app
from fl_sim.federation.engine import InProcess, InProcessGrid
from fl_sim.federation.server import build_strategy, cohort_of, memory_of, recall, roll_call
from fl_sim.federation.wire import client_of
from tests.federation.world import Always, federate, job


def test_unknown_strategies_and_options_are_named() -> None:
    with pytest.raises(ConfigError, match=r"no strategy 'FedAvgg'; there are: .*FedAvg"):
        build_strategy("FedAvgg", 2, {})
    with pytest.raises(ConfigError, match=r"FedAvg: .*nonsense"):
        build_strategy("FedAvg", 2, {"nonsense": 1})


def test_a_cohort_depends_on_seed_and_round_alone() -> None:
    assert cohort_of(10, 3, 0, 1) == cohort_of(10, 3, 0, 1)
    assert len({tuple(cohort_of(10, 3, 0, r)) for r in range(20)}) > 5
    assert cohort_of(4, 4, 9, 9) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["FedAdam", "FedAvgM"])
def test_a_strategy_goes_on_with_its_memory(name: str) -> None:
    """Momentum that is saved and recalled is the momentum it was."""
    options = {"FedAvgM": {"server_momentum": 0.9}}.get(name, {})
    strategy = build_strategy(name, 2, options)
    for attribute, value in vars(build_strategy(name, 2, options)).items():
        if attribute in {"m_t", "v_t"}:
            assert value is None
    strategy.__dict__["m_t"] = {"a/b": torch.ones(2).numpy()}
    strategy.__dict__["momentum_vector"] = [torch.zeros(1).numpy(), torch.ones(3).numpy()]
    fresh = build_strategy(name, 2, options)
    recall(fresh, memory_of(strategy))
    assert vars(fresh)["m_t"]["a/b"].tolist() == [1.0, 1.0]
    assert [len(v) for v in vars(fresh)["momentum_vector"]] == [1, 3]


def test_rounds_are_counted_in_bytes() -> None:
    out = federate(job(), rounds=1)
    weights = 4 * sum(t.numel() for t in out.state.weights.values())
    assert out.rounds[0].bytes_down == pytest.approx(4 * weights, rel=0.35)
    assert out.rounds[0].bytes_up == pytest.approx(4 * weights, rel=0.35)


def test_nodes_beyond_a_studys_clients_are_not_waited_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment may be larger than a study, and its last clients the first to answer."""
    there = iter([[102, 103], [100, 102, 103], [100, 101, 102, 103]])
    monkeypatch.setattr(InProcessGrid, "get_node_ids", lambda _: next(there))
    assert called(2, of=4) == {100: 0, 101: 1}


def test_a_node_that_is_silent_or_there_twice_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that was killed and has come back under another id, before Flower has noticed."""
    pull = InProcessGrid.pull_messages
    silent = lambda grid, ids: [m for m in pull(grid, ids) if m.metadata.src_node_id != 100]  # noqa: E731
    monkeypatch.setattr(InProcessGrid, "pull_messages", silent)
    monkeypatch.setattr(wire, "client_of", lambda content: [0, 0, 1][client_of(content) - 1])
    assert called(2, of=4) == {101: 0, 102: 0, 103: 1}


def test_a_roll_call_ends_and_names_the_setting_and_the_last_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no data here")

    monkeypatch.setattr("fl_sim.federation.client.partition_of", broken)
    with pytest.raises(FlSimError, match=r"0 answered of 4 .* 0\.3 s; .*no data here: .*runtime\.start_timeout"):
        called(2, of=4, timeout=0.3)


def called(clients: int, of: int, timeout: float = 5.0) -> dict[int, int]:
    """The roll call of a federation in this process."""
    found = dict[int, int]()
    InProcess()(lambda grid: found.update(roll_call(grid, clients, timeout)), client_app(Always(job())), of)
    return found
