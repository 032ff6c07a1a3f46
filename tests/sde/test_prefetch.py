"""Reading ahead: order, memory, exceptions and the end of the threads, by what happens and not by how fast."""

import gc
import threading
import weakref

import pytest

from sde.data.prefetch import Prefetch, in_order

WAIT = 10
"""Seconds after which a thread that should have come has not."""


class Slow:
    """A reader that stops in each step until the step is let go."""

    def __init__(self):
        self.started, self.released, self.done = [], {}, []
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)

    def __call__(self, step):
        with self.lock:
            self.started.append(step)
            event = self.released.setdefault(step, threading.Event())
            self.changed.notify_all()
        assert event.wait(WAIT)
        with self.lock:
            self.done.append(step)
        return f"batch {step}"

    def release(self, *steps):
        with self.lock:
            for step in steps:
                self.released.setdefault(step, threading.Event()).set()

    def until_started(self, *steps):
        with self.lock:
            assert self.changed.wait_for(lambda: set(steps) <= set(self.started), WAIT), self.started


def test_the_next_steps_are_read_while_one_is_used():
    slow = Slow()
    slow.release(0)
    with Prefetch(slow, workers=2, ahead=3) as values:
        assert values.get(0) == "batch 0"
        slow.until_started(1, 2)
        slow.release(2, 1, 3, 4)
        assert [values.get(1), values.get(2)] == ["batch 1", "batch 2"]
        slow.release(5)


def test_values_come_in_order_although_they_are_ready_in_another():
    slow = Slow()
    slow.release(3, 2, 1)
    with Prefetch(slow, workers=4, end=4) as values:
        got = []
        reader = threading.Thread(target=lambda: got.extend(values.get(step) for step in range(4)))
        reader.start()
        slow.until_started(0, 1, 2, 3)
        slow.release(0)
        reader.join(WAIT)
    assert got == [f"batch {step}" for step in range(4)]
    assert sorted(slow.done) == [0, 1, 2, 3]


def test_memory_is_bounded():
    slow = Slow()
    slow.release(*range(20))
    with Prefetch(slow, workers=4, ahead=3) as values:
        values.get(0)
        slow.until_started(3)
        assert max(slow.started) == 3
        values.get(1)
        slow.until_started(4)
        assert max(slow.started) == 4


class Value:
    """What can be referred to weakly."""


def test_what_is_not_wanted_any_more_is_let_go():
    alive = weakref.WeakValueDictionary()

    def fetch(step):
        alive[step] = value = Value()
        return value

    with Prefetch(fetch, workers=1, ahead=3) as values:
        values.get(0)
        values.get(3)
        values.get(100)
        assert values.get(101) is alive[101]
        gc.collect()
        assert min(alive) > 100


def test_nothing_behind_the_end_is_read():
    slow = Slow()
    slow.release(*range(20))
    with Prefetch(slow, workers=2, ahead=5, end=3) as values:
        assert [values.get(step) for step in range(3)] == ["batch 0", "batch 1", "batch 2"]
        assert values.get(7) == "batch 7", "what is asked for is read all the same"
    assert sorted(slow.started) == [0, 1, 2, 7]


@pytest.mark.parametrize("workers", [0, 3])
def test_an_exception_surfaces_at_its_own_step(workers):
    def fetch(step):
        if step == 2:
            raise ValueError("image cat/7.png is damaged (truncated): remove or replace it")
        return step

    with Prefetch(fetch, workers) as values:
        assert [values.get(0), values.get(1)] == [0, 1]
        with pytest.raises(ValueError, match=r"^image cat/7.png is damaged \(truncated\): remove or replace it$"):
            values.get(2)
        assert values.get(3) == 3


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_any_step_can_come_next(workers):
    with Prefetch(lambda step: step**2, workers) as values:
        assert [values.get(step) for step in (0, 1, 7, 8, 3, 3, 4)] == [0, 1, 49, 64, 9, 9, 16]


def fail_after(fetch):
    with Prefetch(fetch, workers=2) as values:
        values.get(0)
        raise ZeroDivisionError


def test_leaving_ends_the_threads_and_drops_what_was_not_begun():
    before = threading.active_count()
    slow = Slow()
    slow.release(0, 1)
    with Prefetch(slow, workers=1, ahead=50) as values:
        values.get(0)
        slow.until_started(2)
        slow.release(2)
    assert max(slow.started) <= 3
    assert threading.active_count() == before
    slow.release(*range(20))
    with pytest.raises(ZeroDivisionError):
        fail_after(slow)
    assert threading.active_count() == before


def test_without_workers_everything_happens_in_the_main_thread():
    threads = []
    with Prefetch(lambda step: threads.append(threading.current_thread()), 0) as values:
        values.get(0)
    assert threads == [threading.main_thread()]
    with pytest.raises(ValueError, match=r"^workers = -1: needs zero, to read in the main thread, or more$"):
        Prefetch(len, -1)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_parts_in_order(workers):
    assert list(in_order(lambda part: part * 2, range(50), workers)) == list(range(0, 100, 2))
    assert list(in_order(len, [], workers)) == []
    parts = in_order(lambda part: 1 // part, [1, 0, 1], workers)
    assert next(parts) == 1
    with pytest.raises(ZeroDivisionError):
        next(parts)
