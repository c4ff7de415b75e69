"""The pool with and without Ray. Its jobs are functions of this module, so that actors can import them."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fl_sim.core.errors import FlSimError
from fl_sim.runtime.parcels import Packer, unpacked
from fl_sim.runtime.pool import Failure, InlinePool, RayPool, RaySession


def double(job: int) -> int:
    if job < 0:
        raise ValueError(f"{job} is negative")
    return 2 * job


def scripted(job: tuple[str, str]) -> str:
    """Sleeps, dies always, or dies the first time."""
    action, mark = job
    if action == "sleep":
        time.sleep(60)
    if action == "die" or (action == "die once" and not Path(mark).exists()):
        Path(mark).touch()
        os._exit(1)
    return action


def test_inline_failures_have_reasons() -> None:
    found: dict[int, int | Failure] = {}
    pool = InlinePool(double, found.__setitem__)
    for job in (1, -1, 2):
        pool.submit(job)
    pool.drain()
    assert found == {1: 2, -1: Failure("ValueError: -1 is negative"), 2: 4}


def total(job: tuple[int, ...]) -> int:
    if -1 in job:
        raise ValueError("-1")
    return sum(job)


def singles(job: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [(one,) for one in job]


def test_what_fails_together_is_tried_alone() -> None:
    found: dict[tuple[int, ...], int | Failure] = {}
    pool = InlinePool(total, found.__setitem__, split=singles)
    for job in ((1, 2), (3, -1, 4), (-1,)):
        pool.submit(job)
    failed = Failure("ValueError: -1")
    assert found == {(1, 2): 3, (3,): 3, (-1,): failed, (4,): 4}


def test_where_no_actor_finds_a_place_whoever_waits_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def nowhere(pool: RayPool[int, int], number: int) -> None:
        asked.append(number)
        raise FlSimError("no room")

    monkeypatch.setattr(RayPool, "_new_actor", nowhere)
    pool = RayPool(double, lambda *_: None, actors=1, waiting=3)
    for job in range(3):
        pool.submit(job)
    with pytest.raises(FlSimError, match="no room"):
        pool.drain()
    assert asked == [0]
    with pytest.raises(FlSimError, match="no room"):
        pool.submit(4)


def summed(job: tuple[str, Tensor, Tensor]) -> float:
    return float(job[1].sum() + job[2].sum())


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    with RaySession(cpus=2):
        yield


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.filterwarnings("ignore")
class TestRay:
    def test_every_job_is_done_once(self, ray: None) -> None:
        found: dict[int, int | Failure] = {}
        pool = RayPool(double, found.__setitem__, actors=2, waiting=2)
        for job in range(-1, 9):
            pool.submit(job)
        pool.drain()
        assert found == {-1: Failure("ValueError: -1 is negative")} | {i: 2 * i for i in range(9)}

    def test_what_fails_together_is_tried_alone(self, ray: None) -> None:
        found: dict[tuple[int, ...], int | Failure] = {}
        pool = RayPool(total, found.__setitem__, actors=1, split=singles)
        for job in ((1, 2), (3, -1)):
            pool.submit(job)
        pool.drain()
        assert found == {(1, 2): 3, (3,): 3, (-1,): Failure("ValueError: -1")}

    def test_a_full_queue_slows_whoever_fills_it(self, ray: None) -> None:
        gate, found = threading.Event(), list[int]()

        def done(job: int, result: int | Failure) -> None:
            gate.wait()
            found.append(job)

        pool = RayPool(double, done, actors=1, waiting=1)

        def fill() -> None:
            for job in range(6):
                pool.submit(job)

        filler = threading.Thread(target=fill, daemon=True)
        filler.start()
        filler.join(timeout=5)
        assert filler.is_alive()  # one is held by `done`, one waits, the third cannot be queued
        gate.set()
        filler.join(timeout=30)
        pool.drain()
        assert found == list(range(6))

    def test_death_is_survived_once_and_time_runs_out(self, ray: None, tmp_path: Path) -> None:
        found: dict[tuple[str, str], str | Failure] = {}
        pool = RayPool(scripted, found.__setitem__, actors=1, timeout=lambda _: 4)
        jobs = [("die once", str(tmp_path / "mark")), ("die", str(tmp_path / "x")), ("sleep", ""), ("rest", "")]
        for job in jobs:
            pool.submit(job)
        pool.drain()
        assert found[jobs[0]] == "die once"
        assert "died 2 times" in str(found[jobs[1]])
        assert found[jobs[2]] == Failure("timeout: took more than 4 s")
        assert found[jobs[3]] == "rest"

    def test_large_tensors_are_sent_once_and_arrive_as_they_were(
        self, ray: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put, sent = sys.modules["ray"].put, list[int]()

        def counted(value: Any) -> Any:
            sent.append(value.nbytes)
            return put(value)

        monkeypatch.setattr("ray.put", counted)
        weights, small = torch.randn(200, 300), torch.arange(3.0)
        odd = [torch.randn(300, 200).T, torch.randn(40_000, dtype=torch.bfloat16), torch.arange(40_000)]
        pack = Packer()
        for job in ((weights, weights, small), (small, weights, *odd)):
            parcel = pack(job)
            assert len(parcel.content) < 600_000
            assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(unpacked(parcel), job, strict=True))
        assert sent == [240_000, 240_000]
        found: dict[str, float | Failure] = {}
        pool = RayPool(summed, lambda job, result: found.update({job[0]: result}), actors=2)
        for name in "abc":
            pool.submit((name, weights, small))
        pool.drain()
        assert found == dict.fromkeys("abc", summed(("", weights, small)))
        assert sent == [240_000] * 3

    def test_what_nobody_holds_leaves_the_store(self, ray: None) -> None:
        pack, tensor = Packer(), torch.randn(200, 300)
        pack(tensor)
        assert len(pack._stored) == 1
        del tensor
        assert len(pack._stored) == 0

    def test_a_broken_consumer_is_not_silent(self, ray: None) -> None:
        def broken(job: int, result: int | Failure) -> None:
            raise OSError("disk full")

        pool = RayPool(double, broken, actors=1)
        pool.submit(1)
        with pytest.raises(OSError, match="disk full"):
            pool.drain()
