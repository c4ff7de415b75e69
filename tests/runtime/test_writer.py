"""Writing beside the work: in order, never ahead of what failed, never far behind."""

import threading
from functools import partial

import pytest

from fl_sim.runtime.writer import Task, Writer


def test_all_is_done_in_order_beside_the_one_who_gives_it() -> None:
    gate, done = threading.Event(), list[int]()
    with Writer() as write:
        write(lambda: done.append(int(gate.wait(10)) - 1))
        for i in range(1, 9):
            write(partial(done.append, i))
        assert done == []
        gate.set()
    assert done == list(range(9))


def full() -> None:
    raise OSError("disk full")


def written(*tasks: Task) -> None:
    with Writer() as write:
        for task in tasks:
            write(task)
        write.mark()
        write.mark()


def test_nothing_is_done_after_what_failed() -> None:
    done: list[int] = []
    with pytest.raises(OSError, match="disk full"):
        written(partial(done.append, 1), full, partial(done.append, 2))
    assert done == [1]
    with pytest.raises(OSError, match="disk full"):
        written(full)


def test_an_error_of_the_giver_drops_what_has_not_begun() -> None:
    gate, begun, done = threading.Event(), threading.Event(), list[int]()

    def slow() -> None:
        begun.set()
        gate.wait(10)
        done.append(1)

    def interrupted() -> None:
        with Writer() as write:
            write(slow)
            write(partial(done.append, 2))
            begun.wait(10)
            threading.Timer(0.1, gate.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == [1]


def test_a_mark_waits_for_what_came_before_the_last_one() -> None:
    gate, done = threading.Event(), list[int]()
    with Writer() as write:
        write(lambda: done.append(int(gate.wait(10))))
        write.mark()
        write(partial(done.append, 2))
        threading.Timer(0.1, gate.set).start()
        write.mark()
        assert done[:1] == [1]
    assert done == [1, 2]


def test_many_tasks_make_the_giver_wait() -> None:
    gate = threading.Event()

    def wait() -> None:
        gate.wait(10)

    def give(write: Writer) -> None:
        for _ in range(3):
            write(wait)

    with Writer(waiting=1) as write:
        giver = threading.Thread(target=give, args=(write,), daemon=True)
        giver.start()
        giver.join(0.2)
        assert giver.is_alive()  # one is done, one waits, the third cannot be queued
        gate.set()
        giver.join(10)
        assert not giver.is_alive()
